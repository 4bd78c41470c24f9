"""Sound without loss: bytes and speed beside FLAC at its highest level, clip by clip."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import latentzip as lz

EFFORTS = (1, 5, 8)
SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3")
FLAC = "FLAC -8"

Clip = tuple[str, str, np.ndarray, int, str]  # kind, name, samples (T, C), rate, FLAC's subtype


def _generated() -> list[Clip]:
    rng, t = np.random.default_rng(0), np.arange(3 * 44100)[:, None] / 44100
    parts = [np.sin(2 * np.pi * f * t + [0, f]) * np.exp(-(t % 0.5) * k) for f, k in ((220, 3), (331, 5), (1250, 9))]
    tones = np.sum(parts, 0)
    x = np.rint((tones / 4 + rng.normal(0, 0.002, tones.shape)) * 32767).astype(np.int16)
    return [("generated", "tones in noise", x, 44100, "PCM_16")]


def clips(folder: Path | None, count: int | None) -> list[Clip]:
    """Sound below a folder, in the samples that it has: 24 bits in int32, all else in int16; kinds are folders."""
    if folder is None:
        return _generated()
    found: list[Clip] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)[:count]:
        deep = soundfile.info(str(path)).subtype == "PCM_24"
        x, rate = soundfile.read(str(path), dtype="int32" if deep else "int16", always_2d=True)
        found.append((path.parent.name, path.stem, x, rate, "PCM_24" if deep else "PCM_16"))
    return found


def _flac(clip: Clip) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, clip[2], clip[3], format="FLAC", subtype=clip[4], compression_level=1.0)
    return buffer.getvalue()


def _unflac(data: bytes, clip: Clip) -> np.ndarray:
    return soundfile.read(io.BytesIO(data), dtype=str(clip[2].dtype), always_2d=True)[0]


def _ways() -> dict[str, tuple[Any, Any]]:
    ways: dict[str, tuple[Any, Any]] = {FLAC: (_flac, _unflac)}
    for effort in EFFORTS:
        ways[f"lossless, effort {effort}"] = (
            lambda c, e=effort: lz.encode((c[2], c[3]), codec="lossless", effort=e),
            lambda data, _: lz.decode(data).samples,
        )
    return ways


def run(folder: Path | None, count: int | None) -> dict[str, Any]:
    """Rows, sums and a table; speeds are of the processor's time."""
    rows: list[dict[str, Any]] = []
    found = clips(folder, count)
    for way, (encode, decode) in _ways().items():
        warm = ("", "", np.zeros((300, 2), np.int16), 8000, "PCM_16")
        decode(encode(warm), warm)
        decode(encode((*warm[:2], warm[2][:, :1], *warm[3:])), warm)
        for clip in found:
            start = time.process_time()
            data = encode(clip)
            middle = time.process_time()
            same = decode(data, clip)
            end = time.process_time()
            assert np.array_equal(same, clip[2])
            seconds = len(clip[2]) / clip[3]
            rows.append({
                "codec": way, "kind": clip[0], "clip": clip[1], "num_bytes": len(data), "seconds": seconds,
                "encode_x_realtime": seconds / (middle - start), "decode_x_realtime": seconds / (end - middle),
                "encode_us_a_sample": (middle - start) * 1e6 / clip[2].size,
                "decode_us_a_sample": (end - middle) * 1e6 / clip[2].size,
            })  # fmt: skip
    kinds = list(dict.fromkeys(clip[0] for clip in found))
    summary: dict[str, Any] = {}
    lines = [f"| codec | {', bytes | '.join(kinds)}, bytes | against {FLAC} | encoded | decoded |"]
    lines.append("|---" * (len(kinds) + 4) + "|")
    for way in _ways():
        mine = [r for r in rows if r["codec"] == way]
        sums = {k: sum(r["num_bytes"] for r in mine if r["kind"] == k) for k in kinds}
        base = sum(r["num_bytes"] for r in rows if r["codec"] == FLAC)
        speeds = [float(np.median([r[f"{verb}_x_realtime"] for r in mine])) for verb in ("encode", "decode")]
        percent = 100 * (sum(sums.values()) / base - 1)
        summary[way] = {"bytes": sums, "against_flac_pct": round(percent, 2), "speed_x_realtime": speeds}
        cells = [str(sums[k]) for k in kinds]
        lines.append(f"| {way} | {' | '.join(cells)} | {percent:+.1f} % | {speeds[0]:.0f} x | {speeds[1]:.0f} x |")
    return {"rows": rows, "summary": summary, "markdown": "\n".join(lines)}
