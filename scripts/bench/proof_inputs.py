"""One set of labelled pictures in every form that `proof` compares: arrays, bytes, speeds of loaders."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import latentzip as lz
from latentzip.kernels.compand import expand, expand_table
from latentzip.signals.pictures import SUFFIXES

from .proof_nets import Input

STRIDE = 8
TWELVE, FORTY_EIGHT = "walloc-rgb-16x", "walloc-rgb-4x"
BICUBIC = Image.Resampling.BICUBIC
LATENT_STEMS, WIDE_STEMS = ("1/1", "3/1"), ("1/1", "1/1 3/1")


def listed(root: Path, suffixes: Any, limit: int | None = None) -> tuple[list[Path], np.ndarray, list[str]]:
    """Files of class folders, their labels, the classes; ``limit`` takes so many of all, evenly."""
    classes = sorted(p.name for p in root.iterdir() if p.is_dir())
    found = [
        (f, i) for i, c in enumerate(classes) for f in sorted((root / c).rglob("*")) if f.suffix.lower() in suffixes
    ]
    if limit is not None and limit < len(found):
        found = [found[i * len(found) // limit] for i in range(limit)]
    return [f for f, _ in found], np.array([i for _, i in found], np.int64), classes


class Pictures:
    """The middle squares of a folder with train/ and test/, a folder a class, as pixels and in other forms."""

    def __init__(self, data: Path, limit: int | None = None, work: Path | None = None) -> None:
        self.work = work  # keeps latents, which take a while
        found = [listed(data / split, SUFFIXES, limit) for split in ("train", "test")]
        self.files = [f[0] for f in found]
        self.labels = tuple(torch.from_numpy(f[1]) for f in found)
        self.classes = found[0][2]
        sides, grey = [], True
        for path in self.files[0][:: max(1, len(self.files[0]) // 64)]:
            with Image.open(path) as image:
                sides.append(min(image.size))
                grey &= image.mode in ("1", "L")
        self.grey, self.side = grey, int(np.median(sides)) // STRIDE * STRIDE
        self.positions = self.side // STRIDE
        self.window = max(self.positions * 7 // 8 // 4 * 4, 1)
        self._pixels: list[np.ndarray] | None = None

    def pixels(self) -> list[np.ndarray]:
        """Both splits, (N, side, side, 3) uint8."""
        if self._pixels is None:
            self._pixels = [np.stack([self.picture(p) for p in files]) for files in self.files]
        return self._pixels

    def picture(self, path: Path | io.BytesIO) -> np.ndarray:
        with Image.open(path) as image:
            image = image.convert("RGB")
            edge = min(image.size)
            left, top = (image.width - edge) // 2, (image.height - edge) // 2
            box = (left, top, left + edge, top + edge)
            if edge == self.side:
                return np.asarray(image.crop(box))
            return np.asarray(image.resize((self.side, self.side), BICUBIC, box))

    def each(self, function: Callable[[np.ndarray], np.ndarray], twins: bool) -> list[Tensor]:
        """A function of single pictures over both splits: (N, variants, H, W, C)."""
        views = (slice(None), slice(None, None, -1)) if twins else (slice(None),)
        return [
            torch.from_numpy(
                np.stack([np.stack([function(np.ascontiguousarray(p[:, v])) for v in views]) for p in part])
            )
            for part in self.pixels()
        ]

    def latents(self, name: str) -> tuple[list[Tensor], list[Tensor]]:
        """(integers, the same before they are rounded) of pictures and their mirrored twins, both companded."""
        kept = None if self.work is None else self.work / f"{name}-{'-'.join(str(len(f)) for f in self.files)}.npz"
        if kept is not None and kept.exists():
            with np.load(kept) as arrays:
                parts = [torch.from_numpy(arrays[f"{kind}{i}"]) for kind in ("rounded", "exact") for i in range(2)]
            return parts[:2], parts[2:]
        codec: Any = lz.load_codec(name)
        exact, rounded = [], []
        for part in self.pixels():
            views = []
            for pixels in (part, part[:, :, ::-1]):
                blocks = [
                    torch.from_numpy(np.ascontiguousarray(pixels[at : at + 16])) for at in range(0, len(pixels), 16)
                ]
                with torch.inference_mode():
                    views.append(torch.cat([codec.real_latent(b.permute(0, 3, 1, 2) / 255) for b in blocks]))
            real = torch.stack(views, 1).permute(0, 1, 3, 4, 2)
            exact.append(real.half().clone(memory_format=torch.contiguous_format))
            rounded.append(real.round().to(torch.int8).clone(memory_format=torch.contiguous_format))
        if kept is not None:
            named = {"rounded": rounded, "exact": exact}
            part_file = kept.with_suffix(".part.npz")  # a killed run leaves nothing half-written under the name
            np.savez(part_file, **{f"{kind}{i}": parts[i].numpy() for kind, parts in named.items() for i in range(2)})
            part_file.replace(kept)
        return rounded, exact

    def jpeg(self, target: float) -> tuple[int, list[bytes]]:
        """(quality, some pictures as JPEG files) at the best quality whose mean does not exceed ``target`` bytes."""
        sample = self.pixels()[0][:: max(1, len(self.pixels()[0]) // 100)]
        low, high = 1, 95
        while low < high:
            middle = (low + high + 1) // 2
            if np.mean([len(jpeg(p, middle)) for p in sample]) <= target:
                low = middle
            else:
                high = middle - 1
        return low, [jpeg(p, low) for p in sample]


def expanded(latents: list[Tensor]) -> list[Tensor]:
    """Companded integers -> what they stand for, float16, in units that differ from channel to channel."""
    table = expand_table(8).half().numpy()
    return [torch.from_numpy(table[(part.short() + 127).to(torch.uint8).numpy()]) for part in latents]


def jpeg(pixels: np.ndarray, quality: int, subsampling: int = 2) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, optimize=True, subsampling=subsampling)
    return out.getvalue()


def resized(side: int, mode: str = "RGB") -> Callable[[np.ndarray], np.ndarray]:
    def function(pixels: np.ndarray) -> np.ndarray:
        image = Image.fromarray(pixels).convert(mode).resize((side, side), BICUBIC)
        return np.asarray(image).reshape(side, side, -1)

    return function


def to_depth(x: np.ndarray, block: int) -> np.ndarray:
    """(H, W, C) -> (H / block, W / block, C * block ** 2)."""
    h, w, c = x.shape
    y = x.reshape(h // block, block, w // block, block, c).transpose(0, 2, 1, 3, 4)
    return y.reshape(h // block, w // block, -1)


def cosines(channels: int, grey: bool) -> Callable[[np.ndarray], np.ndarray]:
    """The first coefficients of the 8 x 8 DCT, in order of frequency, as many as a latent has channels: luma only of
    grey pictures, else a twelfth of them for each chroma plane."""
    k, n = np.mgrid[:STRIDE, :STRIDE]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * STRIDE)) / 2
    basis[0] /= np.sqrt(2)
    order = sorted(np.ndindex(STRIDE, STRIDE), key=lambda p: (p[0] + p[1], p))
    chroma = 0 if grey else channels // 12

    def function(pixels: np.ndarray) -> np.ndarray:
        planes = np.asarray(Image.fromarray(pixels).convert("YCbCr"), np.float32) - 128
        h, w = (n // STRIDE for n in planes.shape[:2])
        blocks = planes.reshape(h, STRIDE, w, STRIDE, 3)
        y = np.einsum("ki,hiwjc,lj->hwklc", basis.astype(np.float32), blocks, basis.astype(np.float32), optimize=True)
        parts = [y[..., i, j, 0] for i, j in order[: channels - 2 * chroma]]
        parts += [y[..., i, j, c] for c in (1, 2) for i, j in order[:chroma]]
        return np.stack(parts, -1).astype(np.float16)

    return function


def inputs(pictures: Pictures, target: float, wanted: Any) -> Iterator[tuple[str, Input]]:
    """Every input that is wanted, by name. ``target``: bytes a picture of the pack."""
    positions, window = pictures.positions, (pictures.window, pictures.window)

    def pixels(parts: list[Tensor], scale: int, stems: tuple[str, ...]) -> Input:
        crop = (window[0] * scale, window[1] * scale)
        return Input(parts[0], parts[1], stems, crop, scale, flips=True)

    full_stems = ("8/8", "4/4:8 3/2")
    if "shrunk" in wanted:
        parts = pictures.each(resized(2 * positions), False)
        yield "shrunk", pixels(parts, 2, ("3/2", "3/1:8 3/2"))
    if "shrunk, grey" in wanted:
        side = round((12 * positions**2) ** 0.5) // 2 * 2  # as many values in one plane
        parts = pictures.each(resized(side, "L"), False)
        crop = round(side * pictures.window / positions) // 4 * 4
        yield "shrunk, grey", Input(parts[0], parts[1], ("3/2:8 3/2", "4/4"), (crop, crop), 1, flips=True)
    if any(name.startswith("latents") and "48" not in name for name in wanted):
        rounded, exact = pictures.latents(TWELVE)
        forms: dict[str, tuple[Callable[[], list[Tensor]], bool]] = {
            "latents": (lambda: expanded(rounded), False),
            "latents, decorrelated": (lambda: expanded(rounded), True),
            "latents, integers": (lambda: rounded, False),
            "latents, not rounded": (lambda: [expand(e.float(), 8).half() for e in exact], False),
        }
        for name, (make, rotate) in forms.items():
            if name in wanted:
                parts = make()
                yield name, Input(parts[0], parts[1], LATENT_STEMS, window, rotate=rotate)
    if "shrunk, as channels" in wanted:
        shrink = resized(2 * positions)
        parts = pictures.each(lambda p: to_depth(shrink(p), 2), True)
        yield "shrunk, as channels", Input(parts[0], parts[1], LATENT_STEMS, window)
    if "cosines" in wanted:
        parts = pictures.each(cosines(12, pictures.grey), True)
        yield "cosines", Input(parts[0], parts[1], LATENT_STEMS, window)
    if "shrunk, 48" in wanted:
        parts = pictures.each(resized(4 * positions), False)
        yield "shrunk, 48", pixels(parts, 4, ("4/4", "3/2:8 3/2"))
    if "latents, 48" in wanted:
        parts = expanded(pictures.latents(FORTY_EIGHT)[0])
        yield "latents, 48", Input(parts[0], parts[1], WIDE_STEMS, window)
    if "full" in wanted:
        yield "full", pixels([torch.from_numpy(p)[:, None] for p in pictures.pixels()], 8, full_stems)
    if "jpeg" in wanted:
        quality, _ = pictures.jpeg(target)
        parts = pictures.each(lambda p: pictures.picture(io.BytesIO(jpeg(p, quality))), False)
        yield "jpeg", pixels(parts, 8, full_stems)


def costs(pictures: Pictures, work: Path, samples: int = 200) -> dict[str, tuple[float, float]]:
    """Of stored forms, over some training pictures: (bytes a sample, samples a CPU second from file to array)."""
    every = max(1, len(pictures.files[0]) // samples)
    files = pictures.files[0][::every]
    shown = [pictures.picture(p) for p in files]
    source = work / "sample"
    source.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(shown):
        Image.fromarray(pixels).convert("L" if pictures.grey else "RGB").save(source / f"{i:05d}.png", compress_level=1)
    out: dict[str, tuple[float, float]] = {}
    for name, codec in (("latents", TWELVE), ("latents, 48", FORTY_EIGHT)):
        lz.data.pack(source, work / f"sample-{codec}", codec, jobs=1, force=True)
        data = lz.data.LatentDataset(work / f"sample-{codec}", tier="archive", threads=1)
        size = sum(s["bytes"] for s in data.archive.manifest["shards"]) / len(data)
        out[name] = size, _rate(lambda data=data: data.__getitems__(range(len(data))), len(data))
    originals = [p.read_bytes() for p in files]
    out["full"] = _files(originals, lambda b: pictures.picture(io.BytesIO(b)))
    out["jpeg"] = _files(
        [jpeg(p, pictures.jpeg(out["latents"][0])[0]) for p in shown], lambda b: pictures.picture(io.BytesIO(b))
    )
    for name, scale in (("shrunk", 2), ("shrunk, 48", 4)):
        shrink = resized(scale * pictures.positions)
        out[name] = _files([jpeg(shrink(p), 95, 0) for p in shown], lambda b: np.asarray(Image.open(io.BytesIO(b))))
    return out


def _files(blobs: list[bytes], read: Callable[[bytes], np.ndarray]) -> tuple[float, float]:
    return float(np.mean([len(b) for b in blobs])), _rate(lambda: [read(b) for b in blobs], len(blobs))


def _rate(read: Callable[[], Any], count: int) -> float:
    read()
    start, rounds = time.process_time(), 0
    while rounds < 2 or time.process_time() - start < 0.3:
        read()
        rounds += 1
    return rounds * count / (time.process_time() - start)
