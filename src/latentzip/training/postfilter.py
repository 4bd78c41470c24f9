"""The network that decoded speech passes in the codec `audio` (`codecs.audio.postfilter`): minutes on a CPU.

    python -m latentzip.training.postfilter --data sounds/ --export weights/

Speech (folders called speech*) is coded at many qualities by the release that holds the tables, half of it at another
pitch and speed. The network learns to bring it nearer to the original in the disturbances of PESQ and in log-mel
distance at once; the waveform may not lose much. All else of the codec stays as it is.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import pretrained
from ..codecs.audio.codec import Audio, from_bytes, to_tensors
from ..codecs.audio.postfilter import PostFilter
from ..codecs.audio_base import Setting
from ..entropy.errors import InputError
from .audio_data import list_sounds
from .export import write_part
from .hearing import RATE, Disturbance, mel_distance
from .mdct import measure
from .sources import Folders

BASE = "3"  # the release whose tables are used
_SECONDS = 8  # of an excerpt
_SPEEDS = (86, 92, 108, 115)  # percent
_ALL, _OFTEN = (8, 46), (10, 32)  # qualities, and those that two thirds of the excerpts have
_QUIETER = 0.6  # powers of ten that excerpts are made quieter by at most
_GUARD_DB = -1.0  # no reward for less error than this


@dataclass(frozen=True)
class Schedule:
    """All that a training depends on beside its data.

    Attributes:
        narrow: see `PostFilter`.
        rounds: excerpts of each file. batch, seconds: of a step.
        mel: weight of a dB of log-mel distance. snr: weight of a dB of error, beside a point of PESQ.
    """

    narrow: int = 16
    rounds: int = 10
    steps: int = 700
    batch: int = 8
    seconds: float = 4.0
    lr: float = 3e-3
    mel: float = 0.6
    snr: float = 0.03
    seed: int = 0


@dataclass(frozen=True)
class _Excerpt:
    """Sounds (T,) float16 at 16 kHz and level 1: the original, what was coded of it, the noise beside that."""

    original: np.ndarray
    coded: np.ndarray
    noise: np.ndarray
    quality: int


def excerpts(codec: Audio, sounds: Folders, rounds: int, rng: np.random.Generator) -> list[_Excerpt]:
    """What the codec makes of speech."""
    import soundfile

    files = [path for path in list_sounds(sounds) if path.parent.name.startswith("speech")]
    if not files:
        raise InputError(f"no speech in {sounds}: folders of it are called speech*")
    out = []
    for turn in range(rounds):
        for path in files:
            x, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
            x = x[:, 0]
            if rng.random() < 0.5 and rate != RATE:
                x, rate = _at(x, rate, RATE), RATE
            if turn and rng.random() < 0.6:
                x = _at(x, int(rng.choice(_SPEEDS)), 100)
            quality = int(rng.integers(*(_ALL if rng.random() < 0.35 else _OFTEN)))
            at = int(rng.integers(max(1, len(x) - _SECONDS * rate)))
            x = np.ascontiguousarray(x[at : at + _SECONDS * rate])
            if np.abs(x).max(initial=0) > 0:
                out.append(_coded(codec, x, rate, quality))
    return out


def _coded(codec: Audio, x: np.ndarray, rate: int, quality: int) -> _Excerpt:
    encoder, latents = codec.analysed(torch.from_numpy(x)[None], rate, quality)
    setting: Setting = encoder.settings[0]
    latent = np.concatenate([groups[0] for groups in latents], 1)
    parts = [part[0, : len(x)].numpy() for part in codec.signals(latent, setting)]
    original, coded, noise = (_at(p, rate, RATE).astype(np.float16) for p in (x / setting.level, *parts))
    return _Excerpt(original, coded, noise, quality)


def _at(x: np.ndarray, rate: int, target: int) -> np.ndarray:
    if rate == target:
        return x
    from scipy.signal import resample_poly

    divisor = math.gcd(rate, target)
    return resample_poly(x, target // divisor, rate // divisor).astype(np.float32)


def train(found: list[_Excerpt], schedule: Schedule, log: Any = print) -> PostFilter:
    """A network trained on excerpts; the mean of the last weights is what comes out."""
    torch.manual_seed(schedule.seed)
    rng = np.random.default_rng(schedule.seed)
    net, heard = PostFilter(schedule.narrow), Disturbance()
    mean = copy.deepcopy(net)
    optimiser = torch.optim.Adam(net.parameters(), schedule.lr, (0.9, 0.98))
    gained = []
    for step in range(schedule.steps):
        for group in optimiser.param_groups:
            rise, fall = min(1, (step + 1) / 40), (1 + math.cos(math.pi * step / schedule.steps)) / 2
            group["lr"] = schedule.lr * rise * fall
        x, coded, noise, quality = _batch(found, schedule, rng)
        y = net.filtered(coded, noise, RATE, quality, torch.ones(1))
        before, after = (
            (heard(x, z), mel_distance(x, z), 10 * torch.log10((x - z).square().mean(1) + 1e-9))
            for z in (coded + noise, y)
        )
        change = [b - a for a, b in zip(before, after)]
        loss = (change[0] + schedule.mel * change[1] + schedule.snr * change[2].clamp(min=_GUARD_DB)).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            for a, b in zip(mean.parameters(), net.parameters()):
                a.lerp_(b, 1 - min(0.99, (step + 1) / (step + 10)))
        gained.append([float(part.detach().mean()) for part in change])
        if step % 50 == 49:
            log(step + 1, "disturbance {:+.3f}, log-mel {:+.3f} dB, error {:+.2f} dB".format(*np.mean(gained[-50:], 0)))
    return mean.eval().requires_grad_(False)


def _batch(found: list[_Excerpt], schedule: Schedule, rng: np.random.Generator) -> list[Tensor]:
    size, parts, qualities = int(schedule.seconds * RATE), [], []
    for i in rng.integers(len(found), size=schedule.batch):
        e = found[int(i)]
        at = int(rng.integers(max(1, len(e.original) - size + 1)))
        gain = np.float32(10 ** -rng.uniform(0, _QUIETER))
        pieces = [part[at : at + size].astype(np.float32) * gain for part in (e.original, e.coded, e.noise)]
        parts.append([np.pad(piece, (0, size - len(piece))) for piece in pieces])
        qualities.append(float(e.quality))
    return [*torch.from_numpy(np.array(parts)).unbind(1), torch.tensor(qualities)]


def with_filter(codec: Audio, net: PostFilter, narrow: int) -> Audio:
    """The codec with a network behind it."""
    out = Audio(replace(codec.config, filter=narrow), codec.name)
    out.load_state_dict(codec.state_dict() | {f"filter.{key}": value for key, value in net.state_dict().items()})
    out.tables = codec.tables
    return out.eval()


_CARD = """# {name}

| | |
|---|---|
| architecture | tables of release {base}; decoded speech passes a network of {parameters} parameters |
| size | {size:.2f} MB |
| fingerprint | `{fingerprint}` |
| loss | disturbances after PESQ, {mel} times the log-mel distance in dB, {snr} times the error in dB |
| training | {steps} steps of {batch} excerpts of {seconds:g} s, {minutes:.0f} min on a CPU (1 thread), seed {seed} |

## Measured on files (container included, means over files)

| | |
|---|---|
{rows}

## Data

{data}
"""


def export(
    codec: Audio, base: pretrained.Entry, schedule: Schedule, seconds: float, out: Path, version: str,
    about_data: str, test: str | None,
) -> Path:  # fmt: skip
    """Write weights, card and index entry into ``out``; tables stay in the release that holds them."""
    return write_part(
        to_tensors(codec), base, out, version, trained_by="postfilter", schedule=schedule, from_bytes=from_bytes,
        measured=lambda codec: measure(codec, test) if test else {}, card=_CARD, minutes=seconds / 60, data=about_data,
        parameters=sum(p.numel() for p in codec.filter.parameters()),
    )  # fmt: skip


def main(argv: list[str] | None = None, schedule: Schedule | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", required=True, help="folders of training sounds")
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--seed", type=int, default=Schedule.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, default=Path("."), metavar="DIR")
    parser.add_argument("--version", default="1", help="of the release that is written")
    parser.add_argument("--about-data", default="Say here what the network was trained on.", help="for the card")
    parser.add_argument("--test", help="folder of test sounds for the figures of the card")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    base = pretrained.release("audio", BASE)
    codec = from_bytes(base.read())
    schedule = replace(schedule or Schedule(), steps=args.steps, seed=args.seed)
    start = time.monotonic()
    found = excerpts(codec, args.data, schedule.rounds, np.random.default_rng(schedule.seed))
    print(f"{len(found)} excerpts in {time.monotonic() - start:.0f} s")
    net = train(found, schedule)
    taken = time.monotonic() - start
    done = with_filter(codec, net, schedule.narrow)
    print(export(done, base, schedule, taken, args.export, args.version, args.about_data, args.test))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
