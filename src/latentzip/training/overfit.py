"""Shared nets of the codec `overfit`: where the fit to each picture starts from, trained by staggered fits.

Several crops are fitted at once, each at another age of its life; every step updates the one set of nets. So the nets
learn to serve latents at every age, not only fitted ones. Latents begin at zero, as they do when a picture is encoded.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ..codecs.overfit.chain import Chain
from ..codecs.overfit.codec import OverfitCodec, to_bytes
from ..codecs.overfit.fit import Schedule
from ..codecs.overfit.integers import bound
from ..codecs.overfit.nets import SIZES, Floats, Nets, initial, layout
from ..codecs.overfit.soap import Soap
from ..codecs.overfit.weights import Start, to_units
from ..codecs.overfit.workers import Workers
from ..entropy.wavefront import build_laplace_tables
from .data import CropSampler
from .export import update_index

_CROPS = 4
_LIFE = 240  # steps that a crop is fitted for
_YOUNG = 0.3  # weight of crops in the first fifth of their life: their gradients are the largest and teach least
_RATE = 5e-3
_NOISE_EXTRA = 1 << 18


class _Crop:
    """One crop on its way: latents, their moments, its age."""

    def __init__(self, target: Floats, count: int, life: int) -> None:
        self.target, self.life, self.age = target, life, 0
        self.latent, self.m, self.v, self.slope = (np.zeros(count, np.float32) for _ in range(4))


class SharedFit:
    """Trains shared nets.

    Args:
        nets: where to start; changed in place.
        rate_weight: lambda of mean squared error + lambda * bits a pixel, samples in [0, 1].
        data: folder of pictures.
        side: of the crops, in pixels.
    """

    def __init__(self, nets: Nets, rate_weight: float, data: str | Path, side: int = 256, seed: int = 1) -> None:
        self.nets, self.rate_weight, self.side = nets, rate_weight, side
        self.sampler = CropSampler(data, 1, side, seed)
        self.chain = Chain(nets.size, nets.channels, (side, side), Workers(1))
        self.soap = Soap(nets, eager=1000, every=4)
        self.schedule = Schedule(_LIFE, rate_weight)
        self.rng = np.random.default_rng(seed)
        self.noise = self.rng.standard_normal(self.chain.count + _NOISE_EXTRA, np.float32)
        self.crops = [self._new(_LIFE * (i + 1) // _CROPS) for i in range(_CROPS)]
        self.finished: list[tuple[float, float]] = []  # error and bits a pixel of crops at the end of their life

    def _new(self, life: int) -> _Crop:
        crop = self.sampler.make()[0].numpy().astype(np.float32) / 255
        if self.nets.channels == 1:
            crop = crop.mean(0, keepdims=True)
        return _Crop(np.ascontiguousarray(crop), self.chain.count, life)

    def step(self, rate: float) -> None:
        """One step of the nets and of each crop's latents."""
        total = self.nets.zeros()
        for i, crop in enumerate(self.crops):
            age = crop.age / crop.life
            late = max(0.0, (age - 0.33) / 0.67)
            temperature, sigma = 0.35 - 0.27 * late, 0.204 if age < 0.33 else 0.22 - 0.07 * late
            at = int(self.rng.integers(0, _NOISE_EXTRA))
            self.chain.soften(crop.latent, self.noise[at:], sigma, temperature, crop.slope)
            self.chain.gradients(self.nets, crop.target, self.rate_weight / self.side**2)
            total.flat += (_YOUNG if age < 0.2 else 1.0) / len(self.crops) * self.chain.nets_grad.flat
            crop.age += 1
            pace = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * late))
            self.chain.adam(crop.latent, crop.slope, crop.m, crop.v, 1.5e-2 * pace, (0.5, 0.97), crop.age)
            if crop.age >= crop.life:
                self._finish(i)
        self.soap.step(total, rate)

    def _finish(self, i: int) -> None:
        crop, chain = self.crops[i], self.chain
        chain.harden(crop.latent)
        bits = chain.rate(self.nets) / self.side**2
        self.finished.append((chain.error(self.nets, crop.target), bits))
        self.crops[i] = self._new(_LIFE)

    def train(self, minutes: float, out: Path, report: float = 60.0) -> None:
        """Steps for so long, at a rate that falls by a cosine; saves now and then."""
        begin, last, steps = time.time(), time.time(), 0
        while (share := (time.time() - begin) / (60 * minutes)) < 1:
            warm = min(1.0, (steps + 1) / 50)
            self.step(_RATE * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))))
            steps += 1
            if time.time() - last > report and self.finished:
                last = time.time()
                error, bits = np.mean(self.finished[-24:], 0)
                cost = 1e4 * (error + self.rate_weight * bits)
                print(f"{steps:6d} steps {len(self.finished):5d} crops cost {cost:.3f} bpp {bits:.4f}", flush=True)
                self.save(out)
        self.save(out)

    def save(self, out: Path) -> None:
        part = out.with_suffix(".part.npz")
        np.savez(part, flat=self.nets.flat, rate_weight=self.rate_weight, size=self.nets.size.name)
        part.replace(out)


_SUMMARY = "photos and graphics, quality 1..100: the smallest files; its nets are fitted to each picture, a minute each"
_CARD = """# overfit

| | |
|---|---|
| architecture | seven grids of integers, context net of {contexts} weights, synthesis of {syntheses} |
| what is here | where fits begin: {starts} |
| fingerprint | `{fingerprint}` |
| training | staggered fits of 256 px crops, latents from zero, SOAP at 5e-3 (`training/overfit.py`) |
| tables | Laplace, 64 scales by 8 fractions, 12 bits (`entropy/wavefront.py`) |

## Measured on files (container included)

See docs/overfit.md.

## Data

{data}
"""


def export(starts: list[Path], out: Path, about_data: str, results: dict[str, float]) -> Path:
    """Write the release of trained starts: weights, card, index entry."""
    held = [np.load(path) for path in starts]
    sizes = {s.name: s for s in SIZES}
    made = []
    for h in held:
        size = sizes[str(h["size"])]
        nets = Nets(size, 3, h["flat"].copy())
        bound(nets)
        made.append(Start(size, 3, float(h["rate_weight"]), to_units(nets)))
    codec = OverfitCodec(made, build_laplace_tables())
    blob = to_bytes(codec)
    file = out / "overfit-v1.safetensors"
    file.write_bytes(blob)
    recipe = SimpleNamespace(summary=_SUMMARY)
    about = SimpleNamespace(loader="latentzip.codecs.overfit.codec:load_bundled", recipe=recipe)
    update_index(out, about, codec, file, blob, "1", results)
    count = {g: [sum(w.total for w in layout(s, 3) if g(w.group)) for s in SIZES] for g in (_of_context, _of_picture)}
    text = _CARD.format(
        contexts=" or ".join(map(str, count[_of_context])), syntheses=" or ".join(map(str, count[_of_picture])),
        starts=", ".join(f"{s.size.name} at lambda {s.rate_weight:g}" for s in made),
        fingerprint=codec.fingerprint.hex(), data=about_data,
    )  # fmt: skip
    (out / "overfit-v1.md").write_text(text)
    return file


def _of_context(group: str) -> bool:
    return group.startswith("context") or group == "features"


def _of_picture(group: str) -> bool:
    return not _of_context(group)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder of training pictures")
    parser.add_argument("--export", type=Path, metavar="DIR", help="write a release of these --starts there")
    parser.add_argument("--starts", type=Path, nargs="+", help="trained nets, small sizes and large lambdas first")
    parser.add_argument("--about-data", default="Say here what the nets were trained on.", help="for the model card")
    parser.add_argument("--size", choices=[s.name for s in SIZES], default="hop")
    parser.add_argument("--rate-weight", type=float, default=0.001, help="lambda")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--init", type=Path, help="nets to go on from")
    parser.add_argument("--seed", type=int, default=1, help="which crops are drawn")
    parser.add_argument("--out", type=Path, default=Path("start.npz"))
    args = parser.parse_args(argv)
    if args.export:
        print(export(args.starts or [], args.export, args.about_data, {}))
        return 0
    if not args.data:
        parser.error("--data is needed: a folder of training pictures")
    size = next(s for s in SIZES if s.name == args.size)
    nets = initial(size, 3)
    if args.init:
        held = np.load(args.init)
        nets.flat[:] = held["flat"]
        gain = math.sqrt(args.rate_weight / float(held["rate_weight"]))
        nets["s1"][...] *= gain
        nets["s2"][:, size.width :] *= gain
    SharedFit(nets, args.rate_weight, args.data, seed=args.seed).train(args.minutes, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
