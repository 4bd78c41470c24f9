"""The entropy coder alone: ours against its peers on the same symbols, in the same run.

Three workloads. *log*: Gaussians whose deviation is log-uniform over the 64 of the bank, by index. *low*: the 30
smallest of them, the smaller the more often, as a low-rate image codec has them. *int8*: Laplacian channels as bytes,
the latents of a codec without a hyperprior. Speed is millions of symbols a second of process CPU time, best of several
runs, from arrays in memory to bytes and back; "over ideal" compares all bytes with -log2 p under the true distribution.
Threads are timed by the clock, so a busy machine shows there.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import laplace, norm

from latentzip.entropy import (
    Decoder,
    Encoder,
    Factorized,
    Gaussian,
    Mixture,
    RateMeter,
    StreamDecoder,
    StreamEncoder,
    TableBank,
    TableModel,
    decode_batch,
    encode_batch,
    scales,
    warm,
)
from latentzip.entropy.tables import normalise

from . import figures

PEER = "compressai EntropyModel"


class Work(NamedTuple):
    """Symbols (n,) int32, the table (or channel) of each, and what an ideal coder needs."""

    name: str
    symbols: np.ndarray
    table: np.ndarray
    deviation: np.ndarray  # of each table or channel
    ideal_bits: float


class Result(NamedTuple):
    """One coder on one workload."""

    coder: str
    symbols: int
    num_bytes: float  # scaled to the whole workload where a slow coder saw a part
    encode_s: float
    decode_s: float


def workloads(n: int) -> list[Work]:
    """The three workloads with about n symbols each."""
    rng = np.random.default_rng(0)
    sigma = scales()
    out = []
    weights = np.exp(-np.arange(30) / 6.0)
    for name, index in (("log", rng.integers(0, 64, n)), ("low", rng.choice(30, n, p=weights / weights.sum()))):
        s = sigma[index]
        x = np.round(rng.normal(size=n) * s)
        p = norm.cdf((x + 0.5) / s) - norm.cdf((x - 0.5) / s)
        ideal = -np.log2(np.maximum(p, 1e-300)).sum()
        out.append(Work(name, x.astype(np.int32), index.astype(np.uint8), sigma, float(ideal)))
    b = np.geomspace(1.2, 28, 12)[::-1]
    side = max(16, int((n / 12) ** 0.5) // 16 * 16)
    channel = np.repeat(np.arange(12), side * side)
    x = np.clip(np.round(rng.laplace(size=channel.size) * b[channel]), -127, 127)
    p = laplace.cdf(x + 0.5, scale=b[channel]) - laplace.cdf(x - 0.5, scale=b[channel])
    ideal = float(-np.log2(p).sum())
    out.append(Work("int8", x.astype(np.int32), channel.astype(np.uint8), b * 2**0.5, ideal))
    return out


def measure(
    coder: str, work: Work, encode: Callable[[], Any], decode: Callable[[Any], Any], n: int, repeats: int
) -> Result:
    """Best CPU times of both ways; the decoded symbols must be those of the workload."""
    times: list[list[float]] = [[], []]
    blob = None
    for r in range(repeats + 1):
        start = time.process_time()
        blob = encode()
        middle = time.process_time()
        back = decode(blob)
        end = time.process_time()
        if r == 0:
            if not np.array_equal(np.asarray(back).reshape(-1), work.symbols[:n]):
                raise AssertionError(f"{coder} does not give back the symbols of {work.name}")
            if repeats > 1:
                continue  # the first round warms caches
        times[0].append(middle - start)
        times[1].append(end - middle)
        if sum(map(sum, times)) > 1.5:
            break
    size = sum(map(len, blob)) if isinstance(blob, list) else len(blob)  # type: ignore[arg-type]
    return Result(coder, n, size * work.symbols.size / n, min(times[0]), min(times[1]))


def ours(work: Work, repeats: int) -> Iterator[Result]:
    """latentzip: one chunk, default and max profile, or fitted tables a channel."""
    n = work.symbols.size
    if work.name == "int8":
        bank = fitted(work)
        models = {"latentzip, table a channel": Factorized(bank, (12, n // 12), 0)}
    else:
        models = {f"latentzip {profile}": Gaussian(work.table, profile=profile) for profile in ("default", "max")}
    for name, model in models.items():
        symbols = work.symbols.reshape(model.shape)

        def encode(model: Any = model, symbols: Any = symbols) -> bytes:
            encoder = Encoder()
            encoder.code(symbols, model)
            return encoder.finish()

        def decode(blob: bytes, model: Any = model) -> Any:
            decoder = Decoder(blob)
            out = decoder.code(None, model)
            decoder.finish()
            return out

        yield measure(name, work, encode, decode, n, repeats)


def live_stream(work: Work, repeats: int) -> Iterator[Result]:
    """latentzip's range coder, first in first out, in frames of 4096 symbols."""
    n = work.symbols.size
    cuts = range(4096, n, 4096)
    symbols, index = np.split(work.symbols, cuts), np.split(work.table, cuts)
    if work.name == "int8":
        bank = fitted(work)
        models = [TableModel(bank, i) for i in index]
    else:
        models = [Gaussian(i) for i in index]

    def encode() -> bytes:
        encoder = StreamEncoder()
        out = []
        for x, m in zip(symbols, models):
            encoder.code(x, m)
            out.append(encoder.take())
        out.append(encoder.finish())
        return b"".join(out)

    def decode(blob: bytes) -> Any:
        decoder = StreamDecoder()
        decoder.feed(blob)
        out = np.concatenate([decoder.code(None, m) for m in models])
        decoder.finish()
        return out

    yield measure("latentzip live stream, frames of 4096", work, encode, decode, n, repeats)


def fitted(work: Work) -> TableBank:
    """Twelve-bit tables from the histogram of each channel."""
    counts = [np.bincount(work.symbols[work.table == c] + 128, minlength=256) for c in range(12)]
    return TableBank.from_histograms(counts, lo=-128)


def ours_mixture(n: int, repeats: int) -> tuple[Work, Result, Result]:
    """Three-component mixtures: ours, and constriction with a row of probabilities a symbol."""
    import constriction

    rng = np.random.default_rng(2)
    w = rng.dirichlet([2, 1, 1], n)
    mu, sigma = rng.normal(size=(n, 3)) * 3, np.exp(rng.normal(size=(n, 3)) * 0.5)
    pick = (rng.random(n)[:, None] > w.cumsum(1)).sum(1).clip(0, 2)
    at = np.arange(n)
    x = np.round(mu[at, pick] + sigma[at, pick] * rng.normal(size=n)).clip(-40, 40).astype(np.int32)
    t = x[:, None] - mu
    p = (w * (norm.cdf((t + 0.5) / sigma) - norm.cdf((t - 0.5) / sigma))).sum(1)
    work = Work("mixture", x, np.zeros(n, np.uint8), sigma, float(-np.log2(p).sum()))
    model = Mixture.from_float(w, mu, sigma)

    def encode() -> bytes:
        encoder = Encoder()
        encoder.code(x, model)
        return encoder.finish()

    part = min(n, 5000)
    edges = np.arange(-40, 42)[None, :, None] - 0.5
    cdf = (w[:part, None] * norm.cdf((edges - mu[:part, None]) / sigma[:part, None])).sum(2)
    rows = np.diff(cdf, axis=1).clip(1e-9).astype(np.float32)
    stack, laws = constriction.stream.stack, constriction.stream.model  # type: ignore[attr-defined]
    family = laws.Categorical(perfect=False)

    def encode_rows() -> bytes:
        coder = stack.AnsCoder()
        coder.encode_reverse(x[:part] + 40, family, rows)
        return coder.get_compressed().tobytes()

    def decode_rows(blob: bytes) -> Any:
        coder = stack.AnsCoder(np.frombuffer(blob, np.uint32))
        return coder.decode(family, rows) - 40

    return (
        work,
        measure("latentzip mixture", work, encode, lambda b: Decoder(b).code(None, model), n, repeats),
        measure("constriction, a row a symbol (rows ready)", work, encode_rows, decode_rows, part, 2),
    )


def compressai(work: Work, repeats: int) -> Iterator[Result]:
    """compressai: the model path that its codecs use, and the bare coder with its lists made beforehand."""
    from compressai.ans import RansDecoder, RansEncoder
    from compressai.entropy_models import GaussianConditional

    n = work.symbols.size
    if work.name != "int8":
        model = GaussianConditional(list(work.deviation))
        model.update()
        x = torch.from_numpy(work.symbols).float()[None]
        index = torch.from_numpy(work.table.astype(np.int32))[None]

        def decode(strings: Any) -> Any:
            return model.decompress(strings, index).numpy()

        yield measure(PEER, work, lambda: model.compress(x, index), decode, n, repeats)
        tables = [t.tolist() for t in (model._quantized_cdf, model._cdf_length, model._offset)]
    else:  # it has no Laplacian: the bare coder gets our fitted tables
        bank = fitted(work)
        cdfs = [[0, *(np.cumsum(bank.table(c).astype(np.int64)) << 4).tolist()] for c in range(12)]
        longest = max(map(len, cdfs))
        tables = [[c + [0] * (longest - len(c)) for c in cdfs], [len(c) for c in cdfs], bank.info[:, 0].tolist()]
    symbols, indexes = work.symbols.tolist(), work.table.tolist()
    yield measure(
        "compressai.ans, lists ready",
        work,
        lambda: RansEncoder().encode_with_indexes(symbols, indexes, *tables),
        lambda s: RansDecoder().decode_with_indexes(s, indexes, *tables),
        n,
        repeats,
    )


def constriction_rows(work: Work, repeats: int) -> Iterator[Result]:
    """constriction: parameter arrays, and integer tables with the symbols sorted by table."""
    import constriction

    n = work.symbols.size
    stack, model = constriction.stream.stack, constriction.stream.model  # type: ignore[attr-defined]
    s = np.ascontiguousarray(work.deviation[work.table])
    gauss = work.name != "int8"
    family = model.QuantizedGaussian(-4000, 4000) if gauss else model.QuantizedLaplace(-128, 127)
    mean, width = np.zeros(n), s if gauss else s / 2**0.5

    def encode() -> bytes:
        coder = stack.AnsCoder()
        coder.encode_reverse(work.symbols, family, mean, width)
        return coder.get_compressed().tobytes()

    def decode(blob: bytes) -> Any:
        return stack.AnsCoder(np.frombuffer(blob, np.uint32)).decode(family, mean, width)

    yield measure("constriction, parameter arrays", work, encode, decode, n, repeats)

    order = np.argsort(work.table, kind="stable")
    grouped = np.split(work.symbols[order], np.cumsum(np.bincount(work.table))[:-1])
    parts = []
    for t, group in enumerate(grouped):
        if not group.size:
            continue
        reach = max(16, int(abs(group).max()) + 1)
        r = np.arange(-reach, reach + 1)
        law = norm(scale=work.deviation[t]) if gauss else laplace(scale=work.deviation[t] / 2**0.5)
        p = np.diff(law.cdf(np.append(r, reach + 1) - 0.5)).clip(1e-12)
        parts.append((group + reach, model.Categorical(p, perfect=False), reach))

    def encode_grouped() -> bytes:
        coder = stack.AnsCoder()
        for group, table, _ in reversed(parts):
            coder.encode_reverse(group, table)
        return coder.get_compressed().tobytes()

    def decode_grouped(blob: bytes) -> Any:
        coder = stack.AnsCoder(np.frombuffer(blob, np.uint32))
        out = np.empty(n, np.int32)
        out[order] = np.concatenate([coder.decode(table, group.size) - reach for group, table, reach in parts])
        return out

    yield measure("constriction, tables, sorted by table", work, encode_grouped, decode_grouped, n, repeats)


def torchac(work: Work, repeats: int) -> Iterator[Result]:
    """torchac, where it is installed: a cumulative row a symbol, so a part of the workload only."""
    import torchac as peer  # pyright: ignore[reportMissingImports]

    pick = np.linspace(0, work.symbols.size - 1, 10_000).astype(np.int64)
    part = work._replace(symbols=work.symbols[pick])
    s = work.deviation[work.table[pick]][:, None]
    reach = int(abs(part.symbols).max()) + 1
    law = norm if work.name != "int8" else laplace
    width = s if work.name != "int8" else s / 2**0.5
    rows = torch.from_numpy(law.cdf((np.arange(-reach, reach + 2)[None] - 0.5) / width)).float()
    rows[:, 0], rows[:, -1] = 0, 1
    x = torch.from_numpy(part.symbols + reach).short()
    result = measure(
        "torchac (rows ready)",
        part,
        lambda: peer.encode_float_cdf(rows, x),
        lambda b: peer.decode_float_cdf(rows, b).numpy() - reach,
        pick.size,
        repeats,
    )
    yield result._replace(num_bytes=result.num_bytes * work.symbols.size / pick.size)


def torch_ans(work: Work, repeats: int) -> Iterator[Result]:
    """torch_ans, where it is installed: 16-bit tables by index, four states interleaved, eight rows."""
    from torch_ans.utils import TorchANSInterface  # pyright: ignore[reportMissingImports]

    cumulative = []
    gauss = work.name != "int8"
    for s in work.deviation:
        law = norm(scale=s) if gauss else laplace(scale=s / 2**0.5)
        reach = int(np.ceil(law.isf(2.0**-18)))
        p = np.diff(law.cdf(np.arange(-reach, reach + 2) - 0.5))
        cumulative.append(np.append(0, np.cumsum(normalise(np.append(p, 1 - p.sum()), 16))))
    longest = max(c.size for c in cumulative)
    cdfs = torch.tensor(
        np.stack([np.pad(c, (0, longest - c.size), mode="edge") for c in cumulative]), dtype=torch.int32
    )
    sizes = torch.tensor([c.size for c in cumulative], dtype=torch.int32)
    offsets = torch.tensor([-(c.size - 3) // 2 for c in cumulative], dtype=torch.int32)
    n = work.symbols.size // 8 * 8
    x = torch.from_numpy(work.symbols[:n]).reshape(8, -1)
    index = torch.from_numpy(work.table[:n].astype(np.int32)).reshape(8, -1)
    coder = TorchANSInterface(impl="rans64", freq_precision=16, device="cpu", num_interleaves=4)
    coder.set_cdfs(cdfs, sizes, offsets)
    yield measure(
        "torch_ans rans64 x4, tables by index",
        work,
        lambda: coder.encode_with_indexes(x, index),
        lambda b: coder.decode_with_indexes(b, index).numpy(),
        n,
        repeats,
    )


def byte_coders(work: Work, repeats: int) -> Iterator[Result]:
    """zstd, brotli and lossless WebP on the int8 latents."""
    from PIL import Image

    n = work.symbols.size
    data = work.symbols.astype(np.int8).tobytes()

    def back(raw: bytes) -> np.ndarray:
        return np.frombuffer(raw, np.int8)

    try:
        import zstandard

        for level in (1, 19):
            yield measure(
                f"zstd -{level}",
                work,
                lambda level=level: zstandard.ZstdCompressor(level=level).compress(data),
                lambda b: back(zstandard.ZstdDecompressor().decompress(b)),
                n,
                repeats if level == 1 else 1,
            )
    except ImportError:
        pass
    try:
        import brotli  # pyright: ignore[reportMissingImports]

        yield measure(
            "brotli -5", work, lambda: brotli.compress(data, quality=5), lambda b: back(brotli.decompress(b)), n, 1
        )
    except ImportError:
        pass
    side = int((n / 12) ** 0.5)
    planes = (work.symbols + 128).astype(np.uint8).reshape(4, 3, side, side).transpose(0, 2, 3, 1)

    def encode() -> list[bytes]:
        out = []
        for plane in planes:
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(plane)).save(buffer, "WEBP", lossless=True, quality=80, method=4)
            out.append(buffer.getvalue())
        return out

    def decode(blobs: list[bytes]) -> Any:
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(b)).convert("RGB")) for b in blobs])
        return pixels.transpose(0, 3, 1, 2).astype(np.int32) - 128

    yield measure("WebP lossless, channels as RGB", work, encode, decode, n, 1)


def real_latents(quick: bool) -> Iterator[tuple[Work, list[Result]]]:
    """Latents of photographs by the codecs in the package: the context model, a table a channel, lossless WebP.

    "Over ideal" is against what the tables that the context model names promise. The tables a channel are fitted to the
    very latents they code and their own bytes are not counted; of two ways to lay channels out as RGB, WebP has the
    better.
    """
    import latentzip as lz

    from . import pictures

    photos = [p for _, p in pictures.load(None, quick)][: 2 if quick else None]
    for info in lz.list_codecs():
        if info.modality != "image":
            continue
        codec: Any = lz.load_codec(info.name)
        if getattr(codec, "context", None) is None or codec.latent_channels % 3:
            continue
        latents = [codec.latent(torch.from_numpy(p).permute(2, 0, 1).float() / 255).numpy() for p in photos]
        meter = RateMeter()
        for z in latents:
            codec.program(meter, z, z.shape)
        flat = np.concatenate([z.reshape(-1) for z in latents]).astype(np.int32)
        work = Work(f"latents of {info.name}", flat, np.zeros(0, np.uint8), np.zeros(0), float(meter.bits))
        tables = [Factorized(_histogram_bank(z), z.shape, 0) for z in latents]
        programs = {
            "latentzip context model": [lambda c, x, z=z, m=codec: m.program(c, x, z.shape) for z in latents],
            "latentzip, table a channel": [lambda c, x, t=t: c.code(x, t) for t in tables],
        }
        results = []
        for name, program in programs.items():

            def encode(program: Any = program, latents: Any = latents) -> list[bytes]:
                return [_encoded(run, z) for run, z in zip(program, latents)]

            def decode(blobs: list[bytes], program: Any = program) -> Any:
                return np.concatenate([run(Decoder(b), None).reshape(-1) for run, b in zip(program, blobs)])

            results.append(measure(name, work, encode, decode, flat.size, 3))
        shapes = [z.shape for z in latents]

        def shrink(latents: Any = latents) -> list[bytes]:
            return [_webp(z) for z in latents]

        def grow(blobs: list[bytes], shapes: Any = shapes) -> Any:
            return np.concatenate([_unwebp(b, shape).reshape(-1) for b, shape in zip(blobs, shapes)])

        results.append(measure("WebP lossless m6", work, shrink, grow, flat.size, 1))
        yield work, results


def _encoded(program: Callable[[Any, Any], Any], symbols: np.ndarray) -> bytes:
    encoder = Encoder()
    program(encoder, symbols)
    return encoder.finish()


def _histogram_bank(z: np.ndarray) -> TableBank:
    low = int(z.min())
    return TableBank.from_histograms([np.bincount(c.reshape(-1) - low) for c in z], lo=low)


def _layouts(channels: int) -> list[tuple[tuple[int, int, int], tuple[int, ...]]]:
    """How channels become one RGB mosaic: how they split, and the axes that lead to (rows, h, columns, w, 3)."""
    third = channels // 3
    rows = max(r for r in range(1, third + 1) if third % r == 0 and r * r <= third)
    return [((3, rows, third // rows), (1, 3, 2, 4, 0)), ((rows, third // rows, 3), (0, 3, 1, 4, 2))]


def _webp(z: np.ndarray) -> bytes:
    from PIL import Image

    c, h, w = z.shape
    out = []
    for number, (split, order) in enumerate(_layouts(c)):
        mosaic = (z + 128).astype(np.uint8).reshape(*split, h, w).transpose(order)
        image = Image.fromarray(np.ascontiguousarray(mosaic).reshape(mosaic.shape[0] * h, -1, 3))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", lossless=True, quality=100, method=6)
        out.append(bytes([number]) + buffer.getvalue())
    return min(out, key=len)


def _unwebp(blob: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    from PIL import Image

    split, order = _layouts(shape[0])[blob[0]]
    sizes = (*split, *shape[1:])
    mosaic = np.asarray(Image.open(io.BytesIO(blob[1:])).convert("RGB")).reshape([sizes[i] for i in order])
    return mosaic.transpose(np.argsort(order)).reshape(shape).astype(np.int32) - 128


def thread_scaling(work: Work, threads: list[int], repeats: int) -> list[dict[str, Any]]:
    """Clock time of 16 chunks over each number of threads."""
    items = [[(x, Gaussian(i))] for x, i in zip(np.array_split(work.symbols, 16), np.array_split(work.table, 16))] * 4
    models = [[m for _, m in item] for item in items]
    n = 4 * work.symbols.size
    rows = []
    for count in threads:
        encode_s, decode_s = np.inf, np.inf
        for _ in range(repeats + 1):
            start = time.perf_counter()
            blobs = encode_batch(items, threads=count)
            middle = time.perf_counter()
            decode_batch(blobs, models, threads=count)
            decode_s = min(decode_s, time.perf_counter() - middle)
            encode_s = min(encode_s, middle - start)
        rows.append(
            {
                "workload": f"{work.name}, 64 chunks, clock time",
                "coder": "latentzip default",
                "threads": count,
                "encode_msym_s": n / encode_s / 1e6,
                "decode_msym_s": n / decode_s / 1e6,
            }
        )
    return rows


def run(quick: bool | argparse.Namespace, threads: list[int] | None = None, out: Path | None = None) -> dict[str, Any]:
    """All rows, the summary, and a Markdown table; takes the dispatcher's arguments or their parts.

    Args:
        quick: fewer symbols: under 50 s.
        threads: numbers of threads to time.
        out: folder for the plot.
    """
    if isinstance(quick, argparse.Namespace):
        threads, out, quick = quick.threads, quick.out, bool(quick.quick)
    threads = threads or [1, 2]
    n, repeats = (400_000, 5) if quick else (4_000_000, 7)
    start = time.perf_counter()
    warm(background=False)
    compile_s = time.perf_counter() - start

    rows: list[dict[str, Any]] = []
    results: dict[tuple[str, str], Result] = {}

    def add(work: Work, result: Result) -> None:
        results[work.name, result.coder] = result
        rows.append(
            {
                "workload": work.name,
                "coder": result.coder,
                "threads": 1,
                "symbols": result.symbols,
                "encode_msym_s": result.symbols / max(result.encode_s, 1e-9) / 1e6,
                "decode_msym_s": result.symbols / max(result.decode_s, 1e-9) / 1e6,
                "bits_per_symbol": 8 * result.num_bytes / work.symbols.size,
                "over_ideal_pct": 100 * (8 * result.num_bytes / work.ideal_bits - 1),
            }
        )

    torch.set_num_threads(1)  # CPU time counts threads that wait for one another, too
    works = workloads(n)
    for work in works:
        peers = [ours, live_stream, compressai, constriction_rows, torch_ans, torchac]
        if work.name == "int8":
            peers.append(byte_coders)
        for peer in peers:
            try:
                for result in peer(work, repeats if peer in (ours, live_stream) else 2):
                    add(work, result)
            except ImportError:
                continue
    mixture, *both = ours_mixture(50_000 if quick else 300_000, 3)
    for result in both:
        add(mixture, result)
    for work, group in real_latents(quick):
        for result in group:
            add(work, result)
    scaling = thread_scaling(works[0], threads, 3)
    rows += scaling

    summary: dict[str, Any] = {"first_use_s": round(compile_s, 2)}
    mine, peer = results["log", "latentzip default"], results.get(("log", PEER))
    if peer:
        summary["encode_vs_compressai"] = round(peer.encode_s / mine.encode_s, 1)
        summary["decode_vs_compressai"] = round(peer.decode_s / mine.decode_s, 1)
    low, low_peer = results["low", "latentzip default"], results.get(("low", PEER))
    if low_peer:
        summary["encode_vs_compressai_low_rate"] = round(low_peer.encode_s / low.encode_s, 1)
        summary["decode_vs_compressai_low_rate"] = round(low_peer.decode_s / low.decode_s, 1)
    for key, profile in (("overhead_pct", "default"), ("overhead_max_pct", "max")):
        result = results["log", f"latentzip {profile}"]
        summary[key] = round(100 * (8 * result.num_bytes / works[0].ideal_bits - 1), 3)
    context = {}
    for name in dict.fromkeys(r["workload"] for r in rows if r["workload"].startswith("latents of ")):
        sizes = [results[name, coder].num_bytes for coder in ("latentzip context model", "WebP lossless m6")]
        context[name.removeprefix("latents of ")] = round(100 * (sizes[0] / sizes[1] - 1), 2)
    if context:
        summary["context_vs_webp_pct"] = context
    if len(scaling) > 1:
        one, many = scaling[0], scaling[-1]
        total = [1 / r["encode_msym_s"] + 1 / r["decode_msym_s"] for r in (one, many)]
        summary["thread_scaling"] = round(total[0] / total[1], 2)
        summary["thread_scaling_threads"] = many["threads"]
    if out:
        plot(rows, out)
    return {"rows": rows, "summary": summary, "markdown": markdown(rows)}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = [
        "| workload | coder | threads | encode Msym/s | decode Msym/s | bits/symbol | over ideal |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        speed = [f"{r[k]:.1f}" if r[k] < 10 else f"{r[k]:.0f}" for k in ("encode_msym_s", "decode_msym_s")]
        bits = f"{r['bits_per_symbol']:.4f} | {r['over_ideal_pct']:+.3f} %" if "over_ideal_pct" in r else "- | -"
        lines.append(f"| {r['workload']} | {r['coder']} | {r['threads']} | {speed[0]} | {speed[1]} | {bits} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], out: Path) -> None:
    """Decoding speed of every coder as bars, `entropy.png`, where matplotlib is installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [w for w in dict.fromkeys(r["workload"] for r in rows) if "," not in w]
    figure, axes = plt.subplots(len(names), 1, figsize=(8, 2.6 * len(names)), squeeze=False)
    for axis, name in zip(axes[:, 0], names):
        part = [r for r in rows if r["workload"] == name][::-1]
        at = np.arange(len(part))
        axis.barh(at + 0.2, [r["encode_msym_s"] for r in part], 0.4, label="encode")
        axis.barh(at - 0.2, [r["decode_msym_s"] for r in part], 0.4, label="decode")
        axis.set(xscale="log", title=name, xlabel="million symbols a second, one thread")
        axis.set_yticks(at, [r["coder"] for r in part], fontsize=8)
        axis.legend(fontsize=8)
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    figures.save(figure, out / "entropy.png", 120)
    plt.close(figure)
