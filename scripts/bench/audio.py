"""The codec `audio` beside Opus, AAC and MP3 on real streams, at the kb/s that these really spend.

Every clip is coded by a conventional codec first; of Opus and AAC their packets count, without the container, of MP3
the whole file. Opus is libsndfile's (the output names its version), AAC that of ffmpeg, where it is installed. Then
`audio` takes the highest quality whose file, container included, is not larger than that: each row has one of ours
beside it that took no more bytes. Clips are the first ten seconds of the files below --data, those in folders called
speech* are speech; without --data, generated ones stand in (`instruments.py` and a few more), and the output says so.

SNR is over all samples and channels, the log-mel distance that of `evaluation.metrics.sound` (80 bands; what lies 80 dB
below the loudest is not counted). PESQ (wide and narrow band) and STOI appear for speech and ViSQOL for all where their
packages are installed (`pesq`, `pystoi`, `visqol-python`); the output says which are missing. Speech is decoded without
the network behind the decoder, too. The last tables hold every clip.

--reuse FILE takes the rows that an earlier --json has of the same clips and weights, where nothing is missing in them.

--listening FOLDER adds machines that listen: a classifier of the sub-folders of FOLDER is trained on the log-mel
statistics of clean one-second excerpts at 8 kHz, and asked about decoded ones that it has not seen.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import latentzip as lz
from latentzip import pretrained
from latentzip.codecs.audio.codec import from_bytes
from latentzip.evaluation.metrics.sound import (
    log_mel_distance,
    mel_power,
    pesq,
    pesq_narrow,
    si_sdr,
    snr,
    stoi,
    visqol,
)
from latentzip.evaluation.peers.sound import CONVENTIONAL_AUDIO

from . import aac, figures
from .instruments import RATE, instruments
from .rows import Rows

SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
SECONDS = 10
LADDER = {
    "music": {"opus": (12, 16, 24, 32, 64, 96, 128), "aac": (64,), "mp3": (64, 128)},
    "speech": {"opus": (9, 12, 16, 24, 32), "aac": (24, 32), "mp3": (32, 64)},
}
QUICK = {"music": {"opus": (32, 64), "mp3": (64,)}, "speech": {"opus": (16,), "mp3": ()}}
JUDGES = {
    "speech": {"pesq": pesq, "pesq_nb": pesq_narrow, "stoi": stoi, "visqol": visqol},
    "music": {"visqol": visqol},
}
PACKAGES = {"pesq": "pesq", "pystoi": "pystoi", "visqol": "visqol-python"}  # imported as: installed as
MODULES = {"pesq": "pesq", "pesq_nb": "pesq", "stoi": "pystoi", "visqol": "visqol"}  # which of them judges need
DIGITS = {"kbps": 1, "snr": 1, "si_sdr": 1, "log_mel": 2, "pesq": 2, "pesq_nb": 2, "stoi": 3, "visqol": 2}
METRICS = ("kbps", "snr", "si_sdr", "log_mel", "pesq", "pesq_nb", "stoi", "visqol")
FILTERED = (10, 18, 27, 38, 50)  # qualities at which speech is decoded with and without the network behind the decoder
UNFILTERED = "3"  # the release of `audio` with the same tables and no network
LISTENING = (6, 8, 12, 16)  # kb/s of Opus
_RATE = 8000

Clip = tuple[str, str, np.ndarray, int]  # kind, name, (T, C) float32, rate


# --- clips -------------------------------------------------------------------------------------------------------


def load(folder: Path | None, quick: bool) -> list[Clip]:
    if folder is None:
        made = generated()
        return made if quick else made + [("music", name, x, RATE) for name, x in instruments().items()]
    import soundfile

    clips: list[Clip] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        info = soundfile.info(str(path))
        x, rate = soundfile.read(str(path), frames=SECONDS * info.samplerate, dtype="float32", always_2d=True)
        kind = "speech" if path.parent.name.startswith("speech") else "music"
        clips.append((kind, path.stem, x[:, :2], rate))
    if quick:
        music, speech = ([c for c in clips if c[0] == kind] for kind in ("music", "speech"))
        clips = [(k, n, x[: 4 * r], r) for k, n, x, r in music[:: max(1, len(music) // 4)][:4] + speech[:2]]
    return clips


def generated() -> list[Clip]:
    """Plucked strings, a rhythm of noise, and gliding formants: nothing like real sound, but of the same kinds."""
    rate, rng = 44100, np.random.default_rng(0)
    n = 4 * rate
    strings = np.zeros((n, 2), np.float32)
    for k in range(24):
        period, start = int(rate / (110 * 2 ** (k % 12 / 6))), k * n // 24
        wave = rng.uniform(-1, 1, period)
        tone = np.empty(n - start)
        for i in range(0, tone.size, period):
            part = tone[i : i + period]
            part[:] = wave[: part.size]
            wave = 0.498 * (wave + np.roll(wave, 1))
        strings[start:] += tone[:, None] * np.array([0.1 + 0.005 * k, 0.2 - 0.005 * k])
    t = np.arange(n) / rate
    beat = np.exp(-30 * (t % 0.25)) * rng.normal(size=n) * 0.2
    drums = np.stack([beat, 0.5 * beat + 0.02 * rng.normal(size=n)], 1).astype(np.float32)
    t = np.arange(4 * 16000) / 16000
    pulses = np.diff(np.floor(np.cumsum(120 + 20 * np.sin(3 * t)) / 16000), prepend=0)
    ring = np.exp(-200 * t[:400]) * np.cos(2 * np.pi * 700 * t[:400])
    voice = np.convolve(pulses, ring)[: t.size] * (1 + np.sin(9 * t)) * 0.2
    made = [("music", "strings", strings, rate), ("music", "drums", drums, rate)]
    return [*made, ("speech", "voice", voice[:, None].astype(np.float32), 16000)]


# --- coding ------------------------------------------------------------------------------------------------------


def ogg_payload(data: bytes) -> int:
    """Bytes of the packets of an Ogg stream behind its two headers."""
    sizes, size, at = [], 0, 0
    while at < len(data):
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        for part in lacing:
            size += part
            if part < 255:
                sizes.append(size)
                size = 0
        at += 27 + len(lacing) + sum(lacing)
    return sum(sizes[2:])


def opus_version(data: bytes) -> str:
    """The library that wrote an Ogg stream, as its comments name it."""
    at = data.find(b"OpusTags") + 8
    return data[at + 4 : at + 4 + int.from_bytes(data[at : at + 4], "little")].decode("utf-8", "replace")


def spent(name: str, data: bytes) -> int:
    return {"opus": ogg_payload, "aac": aac.payload}.get(name, len)(data)


def matched(encode: Callable[[int], bytes], most: float) -> tuple[int, bytes]:
    """The highest quality whose stream has at most so many bytes (quality 1 if none), and the stream."""
    low, high, best = 1, 100, None
    while low < high:
        middle = (low + high + 1) // 2
        data = encode(middle)
        if len(data) <= most:
            low, best = middle, data
        else:
            high = middle - 1
    return low, best if best is not None else encode(low)


def encode(x: np.ndarray, rate: int, quality: int) -> bytes:
    return lz.encode((x, rate), codec="audio", quality=quality)


def decode(data: bytes) -> np.ndarray:
    y = np.asarray(lz.decode(data).samples, np.float32)
    return y[:, None] if y.ndim == 1 else y


def measured(kind: str, x: np.ndarray, y: np.ndarray, rate: int, size: float) -> dict[str, float]:
    row = {
        "kbps": size * 8 * rate / len(x) / 1000,
        "snr": snr(x, y),
        "si_sdr": si_sdr(x, y),
        "log_mel": log_mel_distance(x, y, rate),
    }
    return row | {name: metric(x, y, rate) for name, metric in JUDGES[kind].items() if there(name)}


def there(judge: str) -> bool:
    return importlib.util.find_spec(MODULES[judge]) is not None


def without_tools(ladder: dict[str, dict[str, tuple[int, ...]]]) -> dict[str, dict[str, tuple[int, ...]]]:
    """The ladder without AAC where ffmpeg is missing."""
    return {k: {p: s for p, s in peers.items() if p != "aac" or aac.version()} for k, peers in ladder.items()}


def of_peer(kind: str, x: np.ndarray, rate: int, peer: str, setting: int) -> dict[str, float]:
    codec: Any = aac if peer == "aac" else CONVENTIONAL_AUDIO[peer]
    data = codec.encode(x, rate, setting)
    return measured(kind, x, codec.decode(data, rate, len(x)), rate, spent(peer, data))


def of_audio(kind: str, x: np.ndarray, rate: int, size: float) -> dict[str, float]:
    quality, data = matched(lambda q: encode(x, rate, q), size)
    return {"quality": quality, **measured(kind, x, decode(data), rate, len(data))}


def rows_of(
    clips: list[Clip], ladder: dict[str, dict[str, tuple[int, ...]]], earlier: Path | None = None
) -> list[dict[str, Any]]:
    kept = Rows(("codec", "kind", "clip", "peer", "setting"), earlier, size="samples")
    for kind, clip, x, rate in clips:
        needed = {"kbps", "snr", "si_sdr", "log_mel", *filter(there, JUDGES[kind])}
        for peer, settings in ladder[kind].items():
            for setting in settings:
                what = kind, clip, peer, setting
                row = kept.take(x, (peer, *what), partial(of_peer, kind, x, rate, peer, setting), needed)
                size = round(row["kbps"] * 125 * len(x) / rate)
                kept.take(x, ("audio", *what), partial(of_audio, kind, x, rate, size), needed)
    return kept.rows


def beside_unfiltered(clips: list[Clip], qualities: tuple[int, ...] = FILTERED) -> list[dict[str, Any]]:
    """Means over clips of speech of the same bytes decoded with the network behind the decoder and without."""
    codec: Any = lz.load_codec("audio")
    entry = pretrained.release("audio", UNFILTERED)
    table = []
    for quality in qualities:
        rows: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
        for _, _, x, rate in (c for c in clips if c[0] == "speech"):
            packed = codec.compress(torch.from_numpy(np.ascontiguousarray(x.T)), rate, quality)
            size = len(packed.params) + sum(map(len, packed.chunks))
            for name, decoder in (("without", from_bytes(entry.read())), ("with", codec)):
                y = decoder.decompress(packed.params, packed.chunks, (x.shape[1], len(x)), rate).numpy().T
                rows[name].append(measured("speech", x, y, rate, size))
        for name, part in rows.items():
            if part:
                means = {m: float(np.mean([r[m] for r in part])) for m in METRICS if m in part[0]}
                table.append({"quality": quality, "filter": name, "clips": len(part), **means})
    return table


def averages(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = list(dict.fromkeys((r["kind"], r["peer"], r["setting"], r["codec"]) for r in rows))
    table = []
    for key in keys:
        part = [r for r in rows if (r["kind"], r["peer"], r["setting"], r["codec"]) == key]
        means = {m: float(np.mean([r[m] for r in part])) for m in METRICS if all(m in r for r in part)}
        table.append({**dict(zip(("kind", "peer", "setting", "codec"), key)), "clips": len(part), **means})
    return table


def pick(table: list[dict[str, Any]], kind: str, peer: str, setting: int, codec: str) -> dict[str, Any] | None:
    key = (kind, peer, setting, codec)
    return next((r for r in table if (r["kind"], r["peer"], r["setting"], r["codec"]) == key), None)


# --- speed -------------------------------------------------------------------------------------------------------


def speed(clips: list[Clip], threads: int, quick: bool) -> dict[str, float]:
    """Times real time, encoding and decoding 20 s of stereo at 44.1 kHz and quality 50: CPU time, best of three."""
    x = next((x for kind, _, x, rate in clips if kind == "music" and x.shape[1] == 2 and rate == 44100), clips[0][2])
    x = np.tile(x, (-(-20 * 44100 // len(x)), 1))[: 20 * 44100]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        encode(x[:44100], 44100, 50)
        took: dict[str, list[float]] = {"encode": [], "decode": []}
        for _ in range(2 if quick else 5):
            start = time.process_time()
            data = encode(x, 44100, 50)
            middle = time.process_time()
            decode(data)
            took["encode"].append(middle - start)
            took["decode"].append(time.process_time() - middle)
    finally:
        torch.set_num_threads(before)
    return {name: 20 / min(values) for name, values in took.items()}


# --- machines that listen ----------------------------------------------------------------------------------------


def excerpts(folder: Path, limit: int) -> tuple[list[np.ndarray], list[str], list[int]]:
    """One-second excerpts at 8 kHz, mono, with the names of their sub-folders and the numbers of their files."""
    import soundfile
    from scipy.signal import resample_poly

    found: list[np.ndarray] = []
    labels: list[str] = []
    files: list[int] = []
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)):
        x, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
        mono = resample_poly(x.mean(1), _RATE, rate).astype(np.float32)
        parts = [mono[i : i + _RATE] for i in range(0, len(mono) - _RATE + 1, _RATE)]
        loud = [p for p in parts if np.square(p).mean() > 1e-6][:limit]
        found += loud
        labels += [path.parent.name] * len(loud)
        files += [number] * len(loud)
    return found, labels, files


def statistics(x: np.ndarray) -> np.ndarray:
    """Means and deviations over time of 40 log-mel bands and of their differences."""
    mel = 10 * np.log10(mel_power(x[:, None], _RATE, 40)[0] + 1e-8)
    change = np.diff(mel, axis=0)
    return np.concatenate([mel.mean(0), mel.std(0), change.std(0)])


def listening(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Accuracy of a classifier trained on clean sound, and how well decoded log-mel spectra follow clean ones (R2)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sounds, labels, files = excerpts(folder, 4 if quick else 12)
    rng = np.random.default_rng(0)
    held = set(rng.permutation(max(files) + 1)[: (max(files) + 1) // 3].tolist())
    train = [i for i, f in enumerate(files) if f not in held]
    test = [i for i, f in enumerate(files) if f in held]
    test = [test[i] for i in rng.permutation(len(test))[: 40 if quick else 300]]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit([statistics(sounds[i]) for i in train], [labels[i] for i in train])
    clean = [sounds[i] for i in test]
    truth = np.array([labels[i] for i in test])
    right = float(np.mean(model.predict([statistics(x) for x in clean]) == truth))
    rows = [{"codec": "clean", "setting": 0, "kbps": 128.0, "accuracy": right, "log_mel_r2": 1.0}]
    opus = CONVENTIONAL_AUDIO["opus"]
    codec: Any = lz.load_codec("audio")
    for setting in LISTENING[:2] if quick else LISTENING:
        theirs = [opus.encode(x[:, None], _RATE, setting) for x in clean]
        sizes = [ogg_payload(d) for d in theirs]
        rows.append(heard(model, truth, clean, [opus.decode(d, _RATE, _RATE)[:, 0] for d in theirs], sizes, setting))
        for share in (1.0, 0.65):
            quality, packed = alike(codec, clean, share * sum(sizes))
            ours = [codec.decompress(p.params, p.chunks, (1, _RATE), _RATE)[0].numpy() for p in packed]
            sizes_ours = [sum(map(len, p.chunks)) for p in packed]
            rows.append({**heard(model, truth, clean, ours, sizes_ours, setting), "codec": "audio", "quality": quality})
    return rows


def alike(codec: Any, sounds: list[np.ndarray], most: float) -> tuple[int, list[Any]]:
    """All sounds at the highest quality at which they have at most so many bytes together; of packets, as for Opus."""
    low, high = 1, 100
    packed: list[Any] = []
    while low < high:
        middle = (low + high + 1) // 2
        tried = [codec.compress(torch.from_numpy(x)[None], _RATE, middle) for x in sounds]
        if sum(len(c) for p in tried for c in p.chunks) <= most:
            low, packed = middle, tried
        else:
            high = middle - 1
    return low, packed or [codec.compress(torch.from_numpy(x)[None], _RATE, low) for x in sounds]


def heard(
    model: Any, truth: np.ndarray, clean: list[np.ndarray], decoded: list[np.ndarray], sizes: list[int], setting: int
) -> dict[str, Any]:
    a, b = (
        np.concatenate([10 * np.log10(mel_power(x[:, None], _RATE, 40)[0] + 1e-8) for x in sounds])
        for sounds in (clean, decoded)
    )
    return {
        "codec": "opus",
        "setting": setting,
        "kbps": float(np.mean(sizes)) * 8 / 1000,
        "accuracy": float(np.mean(model.predict([statistics(x) for x in decoded]) == truth)),
        "log_mel_r2": float(1 - np.square(a - b).sum() / np.square(a - a.mean(0)).sum()),
    }


# --- report ------------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> dict[str, Any]:
    clips = load(args.data, args.quick)
    rows = rows_of(clips, without_tools(QUICK if args.quick else LADDER), args.reuse)
    table = averages(rows)
    fast = speed(clips, 1, args.quick)
    heard_rows = listening(args.listening, args.quick) if args.listening else []
    filter_rows = beside_unfiltered(clips, FILTERED[2:3] if args.quick else FILTERED)
    summary: dict[str, Any] = {}
    for kind, rate in (("music", 64), ("music", 32), ("speech", 16)):
        own, opus = (pick(table, kind, "opus", rate, c) for c in ("audio", "opus"))
        if own and opus:
            tail = "" if (kind, rate) == ("music", 64) else f"_{kind}_{rate}"
            summary[f"snr_vs_opus_db{tail}"] = round(own["snr"] - opus["snr"], 2)
            summary[f"logmel_vs_opus{tail}"] = round(own["log_mel"] / opus["log_mel"], 3)
            if "pesq" in own:
                summary[f"pesq_vs_opus{tail}"] = round(own["pesq"] - opus["pesq"], 3)
    own, mp3 = (pick(table, "music", "mp3", 64, c) for c in ("audio", "mp3"))
    if own and mp3:
        summary["logmel_vs_mp3"] = round(own["log_mel"] / mp3["log_mel"], 3)
    summary["encode_x_realtime"] = round(fast["encode"], 1)
    summary["decode_x_realtime"] = round(fast["decode"], 1)
    if args.out:
        plot(table, args.out)
    text = markdown(table, filter_rows, heard_rows, clips, fast, args.data is None) + "\n" + by_clip(rows)
    return {
        "rows": rows,
        "averages": table,
        "filter": filter_rows,
        "listening": heard_rows,
        "summary": summary,
        "markdown": text,
    }


def markdown(
    table: list[dict[str, Any]], filter_rows: list[dict[str, Any]], heard_rows: list[dict[str, Any]], clips: list[Clip],
    fast: dict[str, float], fake: bool,
) -> str:  # fmt: skip
    lines = ["Means over clips; of ours the container counts, of Opus and AAC only their packets.", "", *judges()]
    if fake:
        lines += ["**Generated clips only**: give --data for figures that mean something."]
    names = {
        "kbps": "kb/s",
        "snr": "SNR dB",
        "si_sdr": "SI-SDR dB",
        "log_mel": "log-mel dB",
        "pesq": "PESQ",
        "pesq_nb": "PESQ narrow",
        "visqol": "ViSQOL",
        "stoi": "STOI",
    }
    for kind in dict.fromkeys(k for k, *_ in clips):
        part = [r for r in table if r["kind"] == kind]
        shown = [m for m in METRICS if any(m in r for r in part)]
        lines += ["", f"{kind.capitalize()}, {sum(c[0] == kind for c in clips)} clips:", ""]
        lines += ["| codec | " + " | ".join(names[m] for m in shown) + " |", "|---" * (len(shown) + 1) + "|"]
        for r in part:
            label = (
                f"{r['codec']} {r['setting']}" if r["codec"] == r["peer"] else f"audio, as {r['peer']} {r['setting']}"
            )
            cells = [f"{r[m]:.{DIGITS[m]}f}" if m in r else "" for m in shown]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    if filter_rows:
        shown = [m for m in METRICS if m in filter_rows[0]]
        lines += ["", "Speech with and without the network behind the decoder, the same bytes:", ""]
        lines += ["| quality, network | " + " | ".join(names[m] for m in shown) + " |", "|---" * (len(shown) + 1) + "|"]
        for r in filter_rows:
            cells = [f"{r[m]:.{DIGITS[m]}f}" for m in shown]
            lines.append(f"| {r['quality']}, {r['filter']} | " + " | ".join(cells) + " |")
    if heard_rows:
        lines += [
            "",
            "Machines that listen, one second at 8 kHz:",
            "",
            "| codec | kb/s | accuracy | log-mel R2 |",
            "|---|---|---|---|",
        ]
        for r in heard_rows:
            lines.append(f"| {r['codec']} | {r['kbps']:.1f} | {r['accuracy']:.3f} | {r['log_mel_r2']:.3f} |")
    lines += [
        "",
        f"Stereo at 44.1 kHz, quality 50, one thread: encoding {fast['encode']:.0f} x, decoding {fast['decode']:.0f} x "
        "real time.",
    ]
    return "\n".join(lines)


def judges() -> list[str]:
    """Who judges and who is judged: versions, and what is missing."""
    opus = opus_version(CONVENTIONAL_AUDIO["opus"].encode(np.zeros((960, 1), np.float32), 48000, 16))
    missing = [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]
    lines = [f"Opus: {opus} of libsndfile, its decoder without the neural enhancement (LACE, NoLACE) of 1.5."]
    lines += [f"AAC: {aac.version()}." if aac.version() else "AAC: left out, ffmpeg is not installed."]
    return [*lines, f"Left out, since not installed: {', '.join(missing)}."] if missing else lines


def by_clip(rows: list[dict[str, Any]]) -> str:
    """Every clip beside Opus: what ours gains in each measure at equal rate."""
    lines = []
    for kind in dict.fromkeys(r["kind"] for r in rows):
        part = [r for r in rows if r["kind"] == kind and r["peer"] == "opus"]
        shown = [m for m in ("snr", "log_mel", "pesq", "pesq_nb", "visqol") if any(m in r for r in part)]
        lines += ["", f"{kind.capitalize()}, clip by clip: Opus / audio", ""]
        lines += ["| clip | Opus kb/s | " + " | ".join(shown) + " |", "|---" * (len(shown) + 2) + "|"]
        for theirs in (r for r in part if r["codec"] == "opus"):
            key = ("clip", "setting")
            ours = next(r for r in part if r["codec"] == "audio" and all(r[k] == theirs[k] for k in key))
            cells = [f"{theirs[m]:.2f} / {ours[m]:.2f}" if m in theirs and m in ours else "" for m in shown]
            lines.append(f"| {theirs['clip']} | {theirs['kbps']:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(table: list[dict[str, Any]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    kinds = list(dict.fromkeys(r["kind"] for r in table))
    fig, axes = plt.subplots(len(kinds), 2, figsize=(11, 4 * len(kinds)), squeeze=False)
    for row, kind in zip(axes, kinds):
        for ax, metric, label in zip(row, ("snr", "log_mel"), ("SNR, dB", "log-mel distance, dB")):
            for peer, codec in (("opus", "audio"), ("opus", "opus"), ("mp3", "mp3")):
                part = sorted(
                    (r["kbps"], r[metric]) for r in table if (r["kind"], r["peer"], r["codec"]) == (kind, peer, codec)
                )
                if part:
                    ax.plot(
                        *zip(*part), "o-" if codec == "audio" else ".--", label=codec, lw=2 if codec == "audio" else 1
                    )
            ax.set(xlabel="kb/s", ylabel=label, title=kind, xscale="log")
            ticks = [t for t in (8, 16, 32, 64, 128) if t >= 0.7 * min(r["kbps"] for r in table if r["kind"] == kind)]
            ax.set_xticks(ticks, [str(t) for t in ticks])
            ax.minorticks_off()
            ax.grid(alpha=0.3)
            ax.legend()
    fig.tight_layout()
    figures.save(fig, out / "audio.png")
    plt.close(fig)
