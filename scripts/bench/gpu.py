"""The GPU bodies on one GPU, in under 8 minutes: the tests first (not with --quick), then bandwidth, symbols a second
and frames a second.

Every time is the median of several runs between CUDA events (or on the wall where the host takes part), after runs that
compile. Bytes are those that have to move once: inputs read plus outputs written. `copy_gb_s` is what a plain copy of
1 GiB reaches in the same run. `frames_s_1080p` is the slower of encoding and decoding batches of 1080p pictures with
hyperprior-fast, pixels on the device to finished files in memory and back. A measurement that fails says so in its row,
and `agree` is then false.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from . import pictures

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 480  # for everything
TESTS = 240  # of them, at most, for the tests
BATCH = 8  # 1080p pictures

Row = dict[str, Any]


def on_device(function: Callable[[], Any], repeats: int = 20) -> float:
    """Seconds a run on the device, the median."""
    for _ in range(3):
        function()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in marks:
        begin.record()
        function()
        end.record()
    torch.cuda.synchronize()
    return float(np.median([begin.elapsed_time(end) for begin, end in marks])) / 1000


def on_the_wall(function: Callable[[], Any], repeats: int = 7) -> float:
    """Seconds a run from call to finished result, the median."""
    times = []
    for i in range(2 + repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        if i >= 2:
            times.append(time.perf_counter() - start)
    return float(np.median(times))


def size_of(*tensors: torch.Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


# --- what is measured --------------------------------------------------------------------------------------------


def copy(quick: bool) -> list[Row]:
    x = torch.empty((1 << 28) // (4 if quick else 1), device="cuda")
    y = torch.empty_like(x)
    seconds = on_device(lambda: y.copy_(x))
    return [{"what": "copy", "ms": 1000 * seconds, "gb_s": 2 * size_of(x) / seconds / 1e9}]


def packets(quick: bool) -> list[Row]:
    from latentzip.kernels import wavelet
    from latentzip.kernels.cuda.packet import packet2d
    from latentzip.kernels.cuda.packet1d import packet1d
    from latentzip.kernels.cuda.packet_encode import packet_encode

    rows: list[Row] = []

    def row(what: str, seconds: float, moved: int, body: float | None = None) -> None:
        rows.append({"what": what, "ms": 1000 * seconds, "gb_s": moved / seconds / 1e9})
        if body is not None:
            rows[-1]["times_faster_than_pytorch"] = body / seconds

    x = torch.rand(2 if quick else 8, 3, 2160, 3840, device="cuda")
    bands = packet2d(x, 3, "bior4.4", "symmetric", False, False)
    for inverse, given in ((False, x), (True, bands)):
        name = "synthesis" if inverse else "analysis"
        apply = wavelet.Packet.apply
        body = on_device(lambda: apply(given, 3, "bior4.4", "symmetric", inverse, 2), 5)  # noqa: B023
        for precision in ("tf32x3", "tf32"):
            seconds = on_device(lambda: packet2d(given, 3, "bior4.4", "symmetric", inverse, False, precision))  # noqa: B023
            row(f"packet 2-D {name}, {precision}", seconds, 2 * size_of(x), body)
    weight, bias = torch.randn(12, 192, device="cuda"), torch.zeros(12, device="cuda")
    for given in (x, (x * 255).to(torch.uint8)):
        args = (given, weight, bias, 3, "bior4.4", "symmetric", 8, -0.5)
        seconds = on_device(lambda: packet_encode(*args))  # noqa: B023
        row(f"pixels ({given.dtype}) to latents", seconds, size_of(given, packet_encode(*args)))
    sound = torch.randn(32, 2, 1 << (19 if quick else 21), device="cuda")
    seconds = on_device(lambda: packet1d(sound, 4, "bior4.4", "symmetric", False, False))
    row("packet 1-D analysis, 4 levels", seconds, 2 * size_of(sound))
    return rows


def convolutions(quick: bool) -> list[Row]:
    from latentzip.kernels.cuda.depthwise import depthwise3x3
    from latentzip.kernels.cuda.local_conv import local_conv3x3
    from latentzip.kernels.gated_block import BlockWeights, gated_block, reference

    del quick
    rows: list[Row] = []
    c, dtype = 128, torch.bfloat16
    x = torch.randn(BATCH, c, 136, 240, device="cuda", dtype=dtype).contiguous(memory_format=torch.channels_last)
    taps = torch.randn(BATCH, c // 8, 9, 136, 240, device="cuda", dtype=dtype)
    seconds = on_device(lambda: local_conv3x3(x, taps))
    rows.append({"what": "local 3x3", "ms": 1000 * seconds, "gb_s": size_of(x, x, taps) / seconds / 1e9})
    for t in (x, taps):
        t.requires_grad_()
    y, weight = local_conv3x3(x, taps), torch.randn_like(x)
    seconds = on_device(lambda: torch.autograd.grad(y, (x, taps), weight, retain_graph=True))
    rows.append({"what": "local 3x3, gradients", "ms": 1000 * seconds,
                 "gb_s": size_of(x, x, x, taps, taps) / seconds / 1e9})  # fmt: skip
    x = x.detach()
    w, b = torch.randn(c, 1, 3, 3, device="cuda", dtype=dtype), torch.randn(c, device="cuda", dtype=dtype)
    body = on_device(lambda: F.conv2d(F.silu(x), w, b, padding=1, groups=c))
    seconds = on_device(lambda: depthwise3x3(x, w, b, True))
    rows.append({"what": "SiLU and depthwise 3x3", "ms": 1000 * seconds, "gb_s": 2 * size_of(x) / seconds / 1e9,
                 "times_faster_than_pytorch": body / seconds})  # fmt: skip
    shapes = [(c, c, 1, 1), (c, 1, 3, 3), (c, c, 1, 1), (4 * c, c, 1, 1), (c, 2 * c, 1, 1)]
    weights = BlockWeights(*(
        a.to("cuda", dtype) for s in shapes for a in (torch.randn(s) * s[1] ** -0.5, torch.randn(s[0]))
    ))  # fmt: skip
    with torch.no_grad():
        body = on_device(lambda: reference(x, weights, 12.0))
        seconds = on_device(lambda: gated_block(x, weights, 12.0))
    rows.append({"what": "gated block", "ms": 1000 * seconds, "gb_s": 2 * size_of(x) / seconds / 1e9,
                 "times_faster_than_pytorch": body / seconds})  # fmt: skip
    return rows


def coder(quick: bool) -> list[Row]:
    from latentzip.entropy import frozen_bank
    from latentzip.entropy.gpu.coder import BatchDecoder, BatchEncoder

    bank = frozen_bank("gaussian")
    rows: list[Row] = []
    for chunks, n, streams in (
        [(512, 1 << 14, 8)] if quick else [(1024, 1 << 16, 8), (1024, 1 << 16, 32), (64, 1 << 18, 64)]
    ):
        generator = torch.Generator("cuda").manual_seed(0)
        index = torch.randint(4, 40, (chunks, n), dtype=torch.uint8, device="cuda", generator=generator)
        spread = 0.11 * torch.exp(index.float() * 0.123)
        symbols = torch.randn(chunks, n, device="cuda", generator=generator).mul(spread).round().to(torch.int32)
        encoder = BatchEncoder(chunks, streams)
        encoder.table(symbols, bank, index)
        blobs = encoder.finish()
        name = f"{chunks} chunks of {n} symbols, {streams} streams"

        def encode() -> list[bytes]:
            encoder = BatchEncoder(chunks, streams)  # noqa: B023
            encoder.table(symbols, bank, index)  # noqa: B023
            return encoder.finish()

        def decode() -> torch.Tensor:
            decoder = BatchDecoder(blobs)  # noqa: B023
            out = decoder.table(bank, index)  # noqa: B023
            decoder.finish()
            return out

        agree = torch.equal(decode(), symbols)
        # the table call alone; each run needs a fresh decoder, which is made before the events
        decoders = iter([BatchDecoder(blobs) for _ in range(10)])
        kernel = on_device(lambda: next(decoders).table(bank, index), 7)  # noqa: B023
        total = symbols.numel() / 1e9
        rows.append({"what": f"decode, {name}", "ms": 1000 * kernel, "gsym_s": total / kernel, "agree": agree})
        rows.append({"what": f"bytes to symbols, {name}", "ms": 1000 * (s := on_the_wall(decode)), "gsym_s": total / s})
        rows.append({"what": f"symbols to bytes, {name}", "ms": 1000 * (s := on_the_wall(encode)), "gsym_s": total / s})
    return rows


def frames(folder: Path | None, quick: bool) -> list[Row]:
    import latentzip as lz

    photos = [np.asarray(p) for _, p in pictures.load(folder, True)]
    wall = [np.tile(p, (-(-1080 // p.shape[0]), -(-1920 // p.shape[1]), 1))[:1080, :1920] for p in photos]
    x = torch.stack([torch.tensor(wall[i % len(wall)]) for i in range(BATCH)]).permute(0, 3, 1, 2).cuda()
    rows: list[Row] = []
    for precision in ("bf16",) if quick else ("bf16", "fp32"):
        codec: Any = lz.load_codec("hyperprior-fast", device="cuda")
        codec.precision = precision
        streams = codec.encode(x, 50)
        cpu = lz.load_codec("hyperprior-fast")
        agree = torch.equal(
            cpu.decode(streams[:1], to="latent")[0], codec.decode(streams[:1], to="latent")[0].cpu()
        )  # fmt: skip
        bpp = 8 * float(np.mean([len(s) for s in streams])) / (1080 * 1920)
        for what, function in (("encode", lambda: codec.encode(x, 50)), ("decode", lambda: codec.decode(streams))):  # noqa: B023
            seconds = on_the_wall(function)
            rows.append({"what": f"{what} 1080p, {precision}, batches of {BATCH}", "ms": 1000 * seconds / BATCH,
                         "frames_s": BATCH / seconds, "bpp": bpp, "agree": agree})  # fmt: skip
    return rows


def training(quick: bool) -> list[Row]:
    """Seconds a step of hyperprior-fast as `scripts/train.py --device cuda --compile` runs it."""
    import tempfile
    from dataclasses import replace

    from PIL import Image

    from latentzip.training.recipes import RECIPES, make_trainer

    del quick
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in pictures.load(None, True):
            Image.fromarray(picture).save(Path(folder) / f"{name}.png")
        for batch in (4, 16):
            recipe = replace(RECIPES["hyperprior-fast"], batch=batch, drawn=0.0)
            trainer = make_trainer(recipe, folder, Path(folder) / str(batch), device="cuda", compiled=True)
            seconds = trainer.seconds_a_step()
            rows.append({"what": f"training step, {batch} crops of {recipe.crop}", "ms": 1000 * seconds})
    return rows


def tests() -> Row:
    """The GPU tests in a process of their own."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    try:
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "tests/gpu", "-p", "no:cacheprovider", "-q", "--tb=short"],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=TESTS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"what": "tests", "failed": f"not done after {TESTS} s"}
    last = result.stdout.strip().splitlines()[-1] if result.stdout.strip() else "no output"
    row: Row = {"what": "tests", "result": last, "agree": result.returncode == 0 and "passed" in last}
    if result.returncode:
        row["failed"] = result.stdout[-6000:]
    return row


# --- all of it ---------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> dict[str, Any]:
    if not torch.cuda.is_available():
        print("benchmark gpu: there is no CUDA device here, so there is nothing to measure", file=sys.stderr)
        raise SystemExit(2)
    start = time.monotonic()
    rows: list[Row] = [] if args.quick else [tests()]
    parts: tuple[tuple[str, Callable[[], list[Row]]], ...] = (
        ("copy", lambda: copy(args.quick)),
        ("packets", lambda: packets(args.quick)),
        ("convolutions", lambda: convolutions(args.quick)),
        ("coder", lambda: coder(args.quick)),
        ("frames", lambda: frames(args.data, args.quick)),
        ("training", lambda: training(args.quick)),
    )
    for name, part in parts:
        if time.monotonic() - start > SECONDS - 60:
            rows.append({"what": name, "failed": "left out: no time"})
            continue
        try:
            rows += part()
        except Exception as error:  # one kernel that fails must not hide what the others do
            rows.append({"what": name, "failed": f"{type(error).__name__}: {error}"[:2000]})
        torch.cuda.empty_cache()
    return {"rows": rows, "summary": summarise(rows), "markdown": table(rows), "device": device()}


def device() -> dict[str, Any]:
    p = torch.cuda.get_device_properties(0)
    return {"name": p.name, "memory_gib": round(p.total_memory / 2**30, 1), "multiprocessors": p.multi_processor_count}


def summarise(rows: list[Row]) -> dict[str, Any]:
    """The flat figures; None where nothing was measured."""

    def best(key: str, *words: str, choose: Callable[..., float] = max) -> float | None:
        found = [r[key] for r in rows if key in r and all(w in r["what"] for w in words)]
        return round(choose(found), 3) if found else None

    bandwidth, packet = best("gb_s", "copy"), best("gb_s", "packet 2-D analysis", "tf32x3")
    return {
        "copy_gb_s": bandwidth,
        "wavelet_vs_copy": round(packet / bandwidth, 3) if packet and bandwidth else None,
        "frames_s_1080p": best("frames_s", "bf16", choose=min),
        "coder_decode_gsym_s": best("gsym_s", "decode, "),
        "agree": all(r.get("agree", True) and "failed" not in r for r in rows),
    }


def table(rows: list[Row]) -> str:
    keys = ("ms", "gb_s", "times_faster_than_pytorch", "gsym_s", "frames_s", "bpp", "agree")
    lines = ["| what | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for r in rows:
        if "failed" in r:
            lines.append(f"| {r['what']} | failed: {r['failed'].splitlines()[-1] if r['failed'] else ''} |")
            continue
        cells = [r.get(key, "") for key in keys]
        cells = [f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells]
        lines.append(f"| {r['what']}{': ' + r['result'] if 'result' in r else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
