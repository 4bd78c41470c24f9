"""Encode and decode throughput of whole files in memory, ours and the peers' in the same run.

The faithful WaLLoC is the published architecture with random weights (speed does not depend on them): its packets
through pytorch_wavelets, the package the original uses, when that is installed, and its latents stored as the original
stores them, lossless WebP. Memory to memory, no process start.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import latentzip as lz
from latentzip.codecs.walloc.original import OriginalConfig, OriginalWalloc
from latentzip.evaluation.bench import best
from latentzip.evaluation.metrics.pictures import psnr
from latentzip.evaluation.peers.pictures import CONVENTIONAL
from latentzip.kernels.compand import compand
from latentzip.kernels.wavelet import inverse_wavelet_packet2d, wavelet_packet2d

from . import peers, pictures

SIZES = ((768, 512), (1920, 1080))
SETTINGS = {"jpeg": 90, "webp": 85, "avif": 65, "jpeg2000": 24}


def photo(width: int, height: int) -> np.ndarray:
    """A real photograph of this size: the bundled ones, tiled by mirror images and cropped."""
    _, base = pictures.load(None, True)[0]
    mirrored = np.concatenate([base, base[:, ::-1]], 1)
    mirrored = np.concatenate([mirrored, mirrored[::-1]], 0)
    repeat = -(-height // mirrored.shape[0]), -(-width // mirrored.shape[1])
    return np.ascontiguousarray(np.tile(mirrored, (*repeat, 1))[:height, :width])


class DepthwisePackets:
    """Level-wise depthwise strided convolutions, the form used where pytorch_wavelets does not install."""

    name = "depthwise convolutions"

    def __init__(self) -> None:
        import pywt

        w: Any = pywt.Wavelet("bior4.4")  # type: ignore[attr-defined]
        self.pad = w.dec_len // 2
        lo, hi = (torch.tensor(f[::-1]) for f in (w.dec_lo, w.dec_hi))
        self.taps = torch.stack([torch.outer(y, x) for x in (lo, hi) for y in (lo, hi)])[:, None].float()

    def analysis(self, x: Tensor, levels: int) -> Tensor:
        for _ in range(levels):
            c, p = x.shape[1], self.pad
            x = torch.nn.functional.pad(x, (p - 1, p - 1, p - 1, p - 1), mode="circular")
            x = torch.nn.functional.conv2d(x, self.taps.repeat(c, 1, 1, 1), stride=2, groups=c)
        return x


class OriginalPackets:
    """The original's own way: one pytorch_wavelets transform a level, all bands split again."""

    name = "pytorch_wavelets"

    def __init__(self) -> None:
        from pytorch_wavelets import DWTForward, DWTInverse

        self.forward_one = DWTForward(J=1, mode="periodization", wave="bior4.4")
        self.inverse_one = DWTInverse(mode="periodization", wave="bior4.4")

    def analysis(self, x: Tensor, levels: int) -> Tensor:
        for _ in range(levels):
            low, high = self.forward_one(x)
            x = torch.cat([low.unsqueeze(2), high[0]], dim=2).flatten(1, 2)
        return x

    def synthesis(self, y: Tensor, levels: int) -> Tensor:
        for _ in range(levels):
            y = y.unflatten(1, (-1, 4))
            y = self.inverse_one((y[:, :, 0], [y[:, :, 1:]]))
        return y


def packets() -> Any:
    try:
        return OriginalPackets()
    except ImportError:
        return DepthwisePackets()


class FaithfulWalloc:
    """Published WaLLoC of ``latent_dim`` channels, end to end as its users run it."""

    def __init__(self, latent_dim: int) -> None:
        torch.manual_seed(0)
        self.model = OriginalWalloc(OriginalConfig(latent_dim=latent_dim)).eval()
        with torch.no_grad():
            self.model.encoder.weight.mul_(60)
        self.packets = packets()
        self.side = round((latent_dim / 3) ** 0.5)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray) -> bytes:
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 - 0.5
        z = compand(self.model.encoder(self.packets.analysis(x, 3))).round()[0]
        plane = (z + 128).to(torch.uint8).unflatten(0, (3, self.side, self.side))
        plane = plane.permute(1, 3, 2, 4, 0).flatten(0, 1).flatten(1, 2)  # (c nh nw) h w -> (nh h) (nw w) c
        buffer = io.BytesIO()
        Image.fromarray(plane.contiguous().numpy()).save(buffer, "WEBP", lossless=True)
        return buffer.getvalue()

    @torch.inference_mode()
    def decode(self, data: bytes) -> np.ndarray:
        plane = torch.from_numpy(np.array(Image.open(io.BytesIO(data))))
        n = self.side
        z = plane.unflatten(0, (n, -1)).unflatten(2, (n, -1)).permute(4, 0, 2, 1, 3).flatten(0, 2)
        m = self.model
        y = torch.nn.functional.embedding(z[None].long() - 128 + 127, m.expansion[:, None])[..., 0]
        bands = m.decoder(y)
        synthesis = getattr(self.packets, "synthesis", None)
        x = synthesis(bands, 3) if synthesis else inverse_wavelet_packet2d(bands, 3, "bior4.4", "periodization")
        return (x[0] + 0.5).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


def run(args: argparse.Namespace) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    names = args.codec or [
        i.name for i in lz.list_codecs() if i.modality == "image" and not i.slow and i.name != "lossless"
    ]
    seconds = 0.5 if args.quick else 2.0
    sizes = SIZES[:1] if args.quick else SIZES
    before = torch.get_num_threads()
    for threads in args.threads:
        torch.set_num_threads(threads)
        for width, height in sizes:
            pixels = photo(width, height)
            rows += transforms(pixels, threads, seconds)
            rows += codecs(pixels, names, threads, seconds, args.quick)
            if args.peers and (width, height) == SIZES[0]:  # minutes at larger sizes
                rows += [timed(*pair, pixels, threads, seconds) for pair in peers.pairs(pixels, args.quick)]
    torch.set_num_threads(before)
    summary = {**summarise(rows), **peers.ratios(rows, names)}
    return {"rows": rows, "summary": summary, "markdown": markdown(rows)}


def transforms(pixels: np.ndarray, threads: int, seconds: float) -> list[dict[str, Any]]:
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 - 0.5
    peer, rows = packets(), []
    size, mp = f"{pixels.shape[1]}x{pixels.shape[0]}", pixels.shape[0] * pixels.shape[1] / 1e6
    with torch.inference_mode():
        for levels in (3, 4):
            s = 1 << levels
            part = x[..., : x.shape[-2] // s * s, : x.shape[-1] // s * s].contiguous()
            ours = best(lambda p=part, j=levels: wavelet_packet2d(p, j), seconds)
            theirs = best(lambda p=part, j=levels: peer.analysis(p, j), seconds)
            y = wavelet_packet2d(part, levels)
            row = {"kind": "packets", "size": size, "threads": threads, "levels": levels}
            inverse = best(lambda y=y, j=levels: inverse_wavelet_packet2d(y, j), seconds)
            their_inverse = None
            if hasattr(peer, "synthesis"):
                their_inverse = best(lambda y=y, j=levels: peer.synthesis(y, j), seconds)
            rows.append({**row, "name": "latentzip", "encode_mp_s": mp / ours, "decode_mp_s": mp / inverse})
            rows.append(
                {
                    **row, "name": peer.name, "encode_mp_s": mp / theirs,
                    "decode_mp_s": mp / their_inverse if their_inverse else None,
                }
            )  # fmt: skip
    return rows


def codecs(pixels: np.ndarray, names: list[str], threads: int, seconds: float, quick: bool) -> list[dict[str, Any]]:
    picture = Image.fromarray(pixels)
    pairs: list[tuple[str, Callable[[], bytes], Callable[[bytes], Any]]] = []
    for name in names:
        ready = {name: lz.load_codec(name)}
        if ready[name].variable_rate:  # a network decides how long they take
            ready[f"{name} bf16"] = lz.load_codec(name, precision="bf16")
        for label, codec in ready.items():
            pairs.append((
                label, lambda c=codec: lz.encode(picture, codec=c), lambda d, c=codec: np.asarray(lz.decode(d, codec=c))
            ))  # fmt: skip
    for dim in (12,) if quick else (12, 48):
        peer = FaithfulWalloc(dim)
        pairs.append((f"faithful WaLLoC {dim}c", lambda p=peer: p.encode(pixels), peer.decode))
    for name, codec in CONVENTIONAL.items():
        step = SETTINGS[name]
        pairs.append((f"{name} {step}", lambda c=codec, s=step: c.encode(picture, s), codec.decode))
    return [timed(*pair, pixels, threads, seconds) for pair in pairs]


def timed(
    name: str, encode: Callable[[], Any], decode: Callable[[Any], Any], pixels: np.ndarray, threads: int, seconds: float
) -> dict[str, Any]:
    """Throughput of one codec on one picture; torch's threads are set by the caller."""
    data = encode()
    t_encode, t_decode = best(encode, seconds), best(lambda: decode(data), seconds)
    mp = pixels.shape[0] * pixels.shape[1] / 1e6
    return {
        "kind": "codec", "name": name, "size": f"{pixels.shape[1]}x{pixels.shape[0]}", "threads": threads,
        "bpp": 8 * peers.num_bytes(data) / (mp * 1e6), "psnr": psnr(decode(data), pixels),
        "encode_mp_s": mp / t_encode, "decode_mp_s": mp / t_decode,
    }  # fmt: skip


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios of the 12-channel codec to the faithful WaLLoC of the same shapes, largest size and one thread first."""

    def of(name: str, size: str, threads: int, kind: str = "codec", **more: Any) -> dict[str, Any] | None:
        for r in rows:
            if (r["kind"], r["name"], r["size"], r["threads"]) == (kind, name, size, threads) and all(
                r.get(k) == v for k, v in more.items()
            ):
                return r
        return None

    summary: dict[str, Any] = {}
    for size, threads in dict.fromkeys((r["size"], r["threads"]) for r in rows):
        tag = f"{size}_{threads}t"
        for ours, theirs, label in (
            ("walloc-rgb-16x", "faithful WaLLoC 12c", "16x"),
            ("walloc-rgb-4x", "faithful WaLLoC 48c", "4x"),
        ):
            a, b = of(ours, size, threads), of(theirs, size, threads)
            if a and b:
                summary[f"encode_vs_walloc_{label}_{tag}"] = round(a["encode_mp_s"] / b["encode_mp_s"], 2)
                summary[f"decode_vs_walloc_{label}_{tag}"] = round(a["decode_mp_s"] / b["decode_mp_s"], 2)
        for levels in (3, 4):
            pair = [r for r in rows if r["kind"] == "packets" and r["size"] == size and r["threads"] == threads]
            pair = [r for r in pair if r["levels"] == levels]
            if len(pair) == 2:
                ratio = pair[0]["encode_mp_s"] / pair[1]["encode_mp_s"]
                summary[f"packets_vs_{pair[1]['name']}_J{levels}_{tag}"] = round(ratio, 2)
    for direction in ("encode", "decode"):
        keys = [k for k in summary if k.startswith(f"{direction}_vs_walloc_16x") and k.endswith("_1t")]
        if keys:
            summary[f"{direction}_vs_walloc"] = summary[keys[-1]]
    return summary


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | size | threads | bpp | PSNR | encode MP/s | decode MP/s |", "|---|---|---|---|---|---|---|"]
    for r in rows:
        name = f"packets J={r['levels']}, {r['name']}" if r["kind"] == "packets" else r["name"]
        bpp = f"{r['bpp']:.2f}" if "bpp" in r else ""
        decode = f"{r['decode_mp_s']:.3g}" if r["decode_mp_s"] else ""
        quality = f"{r['psnr']:.3f}" if "psnr" in r else ""
        lines.append(
            f"| {name} | {r['size']} | {r['threads']} | {bpp} | {quality} | {r['encode_mp_s']:.3g} | {decode} |"
        )
    return "\n".join(lines)
