"""Fit the networks by which decoded symbols refine the scales of a released hyperprior codec, anew, and export it.

    python -m latentzip.training.scale_context hyperprior --data PHOTOS --export candidate --version 2

All else stays: latents, pictures and search are those of the release, files are smaller. Symbols of the whole run are
made by the codec itself, so that the networks learn from what they will code.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from .. import pretrained
from ..codecs.hyperprior.codec import HyperpriorCodec, from_bytes, to_tensors
from ..codecs.hyperprior.context import EIGHTHS, ONE, REACH, TOP, ScaleContext, to_number
from ..entropy import exact
from ..entropy.errors import InputError
from ..entropy.models import float_bits
from .data import CropSampler
from .export import measure_folders, named_folders, write_part
from .report import Log


@dataclass(frozen=True)
class Schedule:
    """All that a fit depends on.

    Attributes:
        width: of the networks.
        batch, crop: crops a step and their side in pixels.
        pool: crops whose symbols are held; one is replaced every step.
        lr: the peak; one cosine to zero.
        quantised_from: part of the run after which the networks are on their integer grids.
        drawn, recoloured: see `CropSampler`.
    """

    width: int = 64
    steps: int = 6000
    batch: int = 8
    crop: int = 256
    pool: int = 1000
    lr: float = 1.5e-3
    quantised_from: float = 0.3
    drawn: float = 0.08
    recoloured: float = 0.25
    seed: int = 1


DEFAULT = Schedule()


class Pool:
    """Symbols of crops at random qualities, as a codec makes them.

    Attributes:
        quality: (P,) float32. code: (P, M, h, w) int16, scale numbers in eighths. symbols: the same, within `REACH`.
    """

    def __init__(self, codec: HyperpriorCodec, sampler: CropSampler, size: int, seed: int) -> None:
        self._codec, self._rng = codec, np.random.default_rng(seed)
        self._crops = chain.from_iterable(iter(sampler.make, None))
        side = sampler.size // codec.stride
        self.quality = torch.zeros(size)
        self.code = torch.zeros(size, codec.config.latent, side, side, dtype=torch.int16)
        self.symbols = torch.zeros_like(self.code)
        for i in range(size):
            self.renew(i)

    def renew(self, i: int) -> None:
        """Put another crop in the place of one."""
        codec, quality = self._codec, int(self._rng.integers(1, 101))
        latent = codec.latent(next(self._crops).float() / 255, quality)
        n = codec.config.hyper // 16
        z = nn.functional.pixel_unshuffle(latent[None, :n].float(), 4)
        self.quality[i] = quality
        self.code[i] = codec.scale_code(z, quality)[0].clamp(0, TOP)
        self.symbols[i] = latent[n:].clamp(-REACH, REACH)


def bits(codec: HyperpriorCodec, context: ScaleContext, code: Tensor, symbols: Tensor, quality: Tensor) -> Tensor:
    """What symbols cost, (B, 2): with the scales of the hyper-latent, and with refined ones, differentiable.

    Args:
        code: scale numbers in eighths (B, M, h, w). symbols: of the same shape. quality: (B,).
    """
    code, x = code.int(), symbols.float()
    number = to_number(code)
    coded, given = number > codec.config.skip, context.given(code, quality) / ONE
    plain = float_bits(x, exact.scale_of(code / EIGHTHS)) * coded
    score = context.score(number, symbols.int()) * coded / ONE
    spent = plain.new_zeros(len(plain))
    for step in range(4):
        mask = codec.means.step_mask(step, *x.shape[2:])
        cost = plain
        if step:
            net = cast(nn.Sequential, context.nets[step - 1])
            corrected = (code + ONE * net(given.clone())) / EIGHTHS
            cost = float_bits(x, exact.scale_of(corrected.clamp(0, TOP // EIGHTHS))) * coded
        spent = spent + (cost * mask).sum((1, 2, 3))
        context.known(given).addcmul_(score, mask)
    return torch.stack((plain.sum((1, 2, 3)), spent), 1)


def fit(
    codec: HyperpriorCodec,
    sampler: CropSampler,
    schedule: Schedule,
    log: Log = print,
    start: ScaleContext | None = None,
) -> ScaleContext:
    """Networks for the symbols of a codec that codes, exact ones.

    Args:
        start: exact networks to go on from.
    """
    with torch.random.fork_rng():
        torch.manual_seed(schedule.seed)
        context = ScaleContext(codec.config.latent, schedule.width)
    context.fill_scores()
    if start is not None:
        context.restore(start)
    pool = Pool(codec, sampler, schedule.pool, schedule.seed)
    log(f"symbols of {schedule.pool} crops")
    optimiser = torch.optim.Adam(context.parameters(), schedule.lr)
    rng, saved = np.random.default_rng(schedule.seed), []
    for step in range(schedule.steps):
        exact.set_quantised(context, step >= schedule.quantised_from * schedule.steps)
        for group in optimiser.param_groups:
            group["lr"] = schedule.lr * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * step / schedule.steps)) / 2
        pool.renew(int(rng.integers(schedule.pool)))
        at = torch.from_numpy(rng.integers(schedule.pool, size=schedule.batch))
        plain, refined = bits(codec, context, pool.code[at], pool.symbols[at], pool.quality[at]).unbind(1)
        # every quality has an equal say; a crop of next to nothing has none
        loss = (refined / (plain.detach() + sampler.size**2 / 100)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        saved.append(1 - float(refined.detach().sum() / plain.detach().sum().clamp(min=1)))
        if step % 200 == 199:
            log(f"{step + 1}: {100 * np.mean(saved[-200:]):.2f} % of the bits saved")
    context.to_exact()
    return context.eval()


def with_context(codec: HyperpriorCodec, context: ScaleContext) -> HyperpriorCodec:
    """The codec with networks that refine its scales."""
    with torch.random.fork_rng():
        out = HyperpriorCodec(replace(codec.config, context=context.width), codec.name)
    out.to_exact()
    out.load_state_dict(codec.state_dict() | {f"scale_context.{k}": v for k, v in context.state_dict().items()})
    out.hyper_bank, out.gain_offsets = codec.hyper_bank, codec.gain_offsets
    return out.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


_CARD = """# {name}

| | |
|---|---|
| architecture | that of release {base}; three exact networks of width {width} refine the scales by decoded symbols |
| parameters | {parameters:.2f} M beside those of release {base}, {size:.2f} MB |
| fingerprint | `{fingerprint}` |
| loss | bits of the latent over those that release {base} needs |
| training | {steps} steps of {batch} crops of {crop} px, {minutes:.0f} min on a CPU (1 thread), seed {seed}; all else is that of release {base} |

## Measured on files (container included)

| | |
|---|---|
{rows}

## Data

{data}
"""  # noqa: E501


def export(
    codec: HyperpriorCodec, base: pretrained.Entry, schedule: Schedule, seconds: float, out: Path, version: str,
    about_data: str, folders: dict[str, str],
) -> Path:  # fmt: skip
    """Write weights, card and index entry into ``out``; what the release holds stays there.

    Args:
        folders: of test pictures, by the name that their figures get.
    """
    assert codec.scale_context is not None
    return write_part(
        to_tensors(codec), base, out, version, trained_by="scale_context", schedule=schedule, from_bytes=from_bytes,
        measured=lambda codec: measure_folders(codec, folders), card=_CARD, minutes=seconds / 60, data=about_data,
        parameters=sum(v.numel() for v in codec.scale_context.nets.state_dict().values()) / 1e6,
    )  # fmt: skip


def main(argv: list[str] | None = None, schedule: Schedule | None = None, log: Callable[[str], None] = print) -> int:
    schedule = schedule or DEFAULT
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="hyperprior or hyperprior-fast")
    parser.add_argument("--data", nargs="+", required=True, help="folders of training pictures")
    parser.add_argument("--width", type=int, default=schedule.width, help="of the networks")
    parser.add_argument("--steps", type=int, default=schedule.steps)
    parser.add_argument("--lr", type=float, default=schedule.lr, help="the peak of the learning rate")
    parser.add_argument("--init", type=Path, metavar="FILE", help="weights whose networks the fit goes on from")
    parser.add_argument("--seed", type=int, default=schedule.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, default=Path("."), metavar="DIR")
    parser.add_argument("--version", default="1", help="of the release that is written")
    parser.add_argument("--about-data", default="Say here what the networks were fitted to.", help="for the card")
    parser.add_argument("--val", help="folder of validation pictures")
    parser.add_argument("--test", help="folder of test pictures for the figures of the card")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    base = pretrained.find(args.name)
    if base.loader != "latentzip.codecs.hyperprior:load_bundled":
        raise InputError(f"{args.name} is no hyperprior codec")
    codec = from_bytes(base.read())
    if codec.config.components > 1:
        raise InputError(f"{args.name} has mixtures: it takes a codec of one Gaussian a latent")
    schedule = replace(schedule, width=args.width, steps=args.steps, lr=args.lr, seed=args.seed)
    begun = from_bytes(args.init.read_bytes()).scale_context if args.init else None
    if args.init and begun is None:
        raise InputError(f"{args.init} holds no networks that refine scales")
    start = time.monotonic()
    sampler = CropSampler(
        args.data, 1, schedule.crop, schedule.seed, drawn=schedule.drawn, recoloured=schedule.recoloured
    )
    context = fit(codec, sampler, schedule, log, begun)
    taken = time.monotonic() - start
    done = with_context(codec, context)
    folders = named_folders(args.val, args.test)
    log(str(export(done, base, schedule, taken, args.export, args.version, args.about_data, folders)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
