"""How fast codecs are on this machine: each in a process of its own, so that threads and memory are its own too."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..entropy.errors import CodecError
from . import memory
from .coders import Coder, Setting, coder
from .runner import Progress
from .signals import RATE_OF, SPEED_UNIT, Signal, find, load

Row = dict[str, Any]
_MIDDLE = {"jpeg": 90, "webp": 85, "avif": 65, "jpeg2000": 24, "opus": 64, "mp3": 128, "vorbis": 60}
_CHILD = "from latentzip.evaluation import bench; bench.child()"


def sample(modality: str) -> Signal:
    """What is timed when no file is given: a photograph of 1024 x 1024, ten seconds of stereo, or 4096 x 256 floats."""
    if modality == "image":
        with (
            (files("latentzip.evaluation") / "samples" / "astronaut.webp").open("rb") as file,
            Image.open(file) as image,
        ):
            pixels = np.asarray(image.convert("RGB"))
        pixels = np.concatenate([pixels, pixels[:, ::-1]], 1)
        return Signal("photograph", "image", np.concatenate([pixels, pixels[::-1]], 0))
    rng = np.random.default_rng(0)
    if modality == "audio":
        return Signal("plucked strings", "audio", _strings(rng), 44100)
    scale = np.exp(rng.normal(0, 1, 256))
    return Signal("activations", "tensor", (rng.standard_normal((4096, 256)) * scale).astype(np.float32))


def _strings(rng: np.random.Generator, rate: int = 44100, seconds: int = 10) -> np.ndarray:
    """(T, 2) float32: plucked strings (decaying harmonics with noisy attacks), four a second, spread over the stage."""
    out = np.zeros((rate * seconds, 2))
    t = np.arange(rate) / rate
    for note in range(4 * (seconds - 1)):
        pitch = 110 * 2 ** (rng.integers(0, 25) / 12)
        tone = sum(np.sin(2 * np.pi * pitch * k * t) * np.exp(-t * (2 + k)) / k for k in range(1, 12))
        tone += rng.normal(0, 0.3, rate) * np.exp(-t * 80)
        pan = rng.uniform(0.2, 0.8)
        start = note * rate // 4
        out[start : start + rate] += tone[:, None] * [pan, 1 - pan]
    return (0.5 * out / np.abs(out).max()).astype(np.float32)


def best(function: Callable[[], Any], seconds: float, most: int = 15) -> float:
    """Shortest wall time of one call: repeats until ``seconds`` have passed (at least once after one warm-up when
    calls are short)."""
    start = time.perf_counter()
    function()
    first = time.perf_counter() - start
    if first > seconds:
        return first
    times: list[float] = []
    while sum(times) < seconds and len(times) < most:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def bench(
    codecs: Sequence[str],
    inputs: Iterable[Any] = (),
    *,
    threads: Sequence[int] = (1,),
    seconds: float = 2.0,
    progress: Progress | None = None,
) -> list[Row]:
    """Time codecs by name (see `coders`), memory to memory.

    Args:
        inputs: paths; of each modality the first is timed, `sample` where there is none.
        threads: numbers of torch's threads; Pillow and libsndfile choose their own and are timed once.
        seconds: for each direction; the shortest call counts.

    Returns:
        Rows with codec, setting, threads, input, rate (``bpp``, ``kbps``, ``bits``), ``encode_speed`` and
        ``decode_speed`` (MP/s, x real time, MB/s: ``speed_unit``), ``peak_mb`` of the codec's own process, ``load_s``;
        with ``error`` where it failed.

    Raises:
        InputError: an unknown codec or input.
    """
    paths = {load(p).modality: os.fspath(p) for p in reversed(find(inputs))} if inputs else {}
    for name in codecs:
        coder_name(name)
    rows: list[Row] = []
    for done, name in enumerate(codecs):
        if progress:
            progress(done, len(codecs))
        rows += _ask({"codec": name, "paths": paths, "threads": list(threads), "seconds": seconds}, max(threads))
    if progress:
        progress(len(codecs), len(codecs))
    return rows


def coder_name(spec: str) -> None:
    """Raises InputError unless ``NAME[@SETTINGS]`` can be timed."""
    from .coders import check_name, parse_settings, split_effort

    name, _, settings = spec.partition("@")
    check_name(name)
    settings, _ = split_effort(settings)
    if settings:
        parse_settings(settings)


def _ask(job: Row, threads: int) -> list[Row]:
    """Run `child` in a new process, which finds this package wherever this one did."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], input=json.dumps(job), capture_output=True, text=True, env=environment,
        check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [f"its process ended with status {done.returncode}"])[-1]
    return [{"codec": job["codec"], "error": last}]


def child() -> None:
    """One codec, as `bench` asks for it on standard input; prints a JSON list of rows."""
    job = json.load(sys.stdin)
    start = time.perf_counter()
    try:
        made = coder(job["codec"])
        there = [m for m in made.modalities if m in job["paths"]]
        signal = load(Path(job["paths"][there[0]])) if there else sample(made.modalities[0])
        settings = made.settings if made.values else [_usual(made)]
        rows = [
            _time(made, s, signal, t, job["seconds"], start) for s in settings for t in _threads(made, job["threads"])
        ]
    except (CodecError, OSError) as error:
        rows = [{"codec": job["codec"], "error": " ".join(str(error).split())}]
    print(json.dumps(rows))


def _usual(made: Coder) -> Setting:
    """The codec's own default where it has one, else what its users choose."""
    if made.kind in ("latentzip", "plug-in") and made.scale == "quality":
        return Setting("default", None)
    if made.name in _MIDDLE:
        made.values = (_MIDDLE[made.name],)
    return made.settings[len(made.settings) // 2]


def _threads(made: Coder, threads: Sequence[int]) -> list[int | None]:
    return [None] if made.kind == "conventional" else list(threads)


def _time(made: Coder, setting: Setting, signal: Signal, threads: int | None, seconds: float, start: float) -> Row:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    memory.reset_peak()
    data = made.encode(signal, setting)
    made.decode(data, signal, setting)
    ready = time.perf_counter() - start
    encode = best(lambda: made.encode(signal, setting), seconds)
    decode = best(lambda: made.decode(data, signal, setting), seconds)
    peak = memory.peak_mb()
    return {
        "codec": made.name, "setting": setting.label, "threads": threads, "modality": signal.modality,
        "input": signal.name, "shape": list(signal.data.shape),
        RATE_OF[signal.modality]: round(8 * len(data) / signal.units, 4),
        "encode_speed": round(signal.throughput(encode), 3), "decode_speed": round(signal.throughput(decode), 3),
        "speed_unit": SPEED_UNIT[signal.modality],
        "peak_mb": None if peak is None else round(peak), "load_s": round(ready, 2),
    }  # fmt: skip


def default_codecs() -> list[str]:
    """Ours of every modality, then the conventional ones."""
    from .coders import own_codecs

    others = {"image": ["jpeg", "webp", "avif", "jpeg2000"], "audio": ["opus", "mp3"], "tensor": ["deflate"]}
    if importlib.util.find_spec("soundfile") is None:
        del others["audio"]
    return [*own_codecs(others), *(name for names in others.values() for name in names)]
