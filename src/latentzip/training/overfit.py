"""Shared nets of the codec `overfit`, where the fit to each picture starts from: training them, and making a release.

python -m latentzip.training.overfit --data PICTURES --size hop --rate-weight 0.001 --out hop_001.npz
python -m latentzip.training.overfit --data PICTURES --init hop_001.npz --towards-fits --out better.npz
python -m latentzip.training.overfit --data OTHERS --compare hop_001.npz better.npz
python -m latentzip.training.overfit --export DIR --starts hop_0003.npz hop_001.npz mop_004.npz mop_012.npz
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ..codecs.overfit.codec import OverfitCodec, from_bytes, to_bytes
from ..codecs.overfit.integers import bounded
from ..codecs.overfit.nets import SIZES, initial, layout
from ..codecs.overfit.weights import Start, to_units
from ..entropy.wavefront import build_laplace_tables
from .export import write_files
from .starts import Reptile, SharedFit, compare, load

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
    made = []
    for nets, rate_weight in map(load, starts):
        made.append(Start(nets.size, 3, rate_weight, to_units(bounded(nets))))
    codec = OverfitCodec(made, build_laplace_tables())
    blob = to_bytes(codec)
    count = {g: [sum(w.total for w in layout(s, 3) if g(w.group)) for s in SIZES] for g in (_of_context, _of_picture)}
    text = _CARD.format(
        contexts=" or ".join(map(str, count[_of_context])), syntheses=" or ".join(map(str, count[_of_picture])),
        starts=", ".join(f"{s.size.name} at lambda {s.rate_weight:g}" for s in made),
        fingerprint=codec.fingerprint.hex(), data=about_data,
    )  # fmt: skip
    loader = "latentzip.codecs.overfit.codec:load_bundled"
    return write_files(out, "1", blob, from_bytes, loader, _SUMMARY, lambda _: results, lambda *_: text)


def _of_context(group: str) -> bool:
    return group.startswith("context") or group == "features"


def _of_picture(group: str) -> bool:
    return not _of_context(group)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of training pictures")
    parser.add_argument("--export", type=Path, metavar="DIR", help="write a release of these --starts there")
    parser.add_argument("--starts", type=Path, nargs="+", help="trained nets, small sizes and large lambdas first")
    parser.add_argument("--about-data", default="Say here what the nets were trained on.", help="for the model card")
    parser.add_argument("--size", choices=[s.name for s in SIZES], default="hop")
    parser.add_argument("--rate-weight", type=float, default=0.001, help="lambda")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--init", type=Path, help="nets to go on from")
    parser.add_argument(
        "--towards-fits", action="store_true", help="move --init towards nets that are fitted to crop after crop"
    )
    parser.add_argument(
        "--compare", type=Path, nargs="+", metavar="NETS", help="fit crops of --data from each of these"
    )
    parser.add_argument("--count", type=int, default=16, help="crops to compare with")
    parser.add_argument("--side", type=int, default=256, help="of the crops, in pixels")
    parser.add_argument("--seed", type=int, default=1, help="which crops are drawn")
    parser.add_argument("--out", type=Path, default=Path("start.npz"))
    args = parser.parse_args(argv)
    if args.export:
        print(export(args.starts or [], args.export, args.about_data, {}))
        return 0
    if not args.data:
        parser.error("--data is needed: a folder of training pictures")
    if args.compare:
        for path, cost in zip(args.compare, compare(args.compare, args.data, args.count, args.side)):
            print(f"{path} {cost:.3f}")
        return 0
    size = next(s for s in SIZES if s.name == args.size)
    nets = initial(size, 3)
    if args.init:
        nets, before = load(args.init)
        gain = math.sqrt(args.rate_weight / before)
        nets["s1"][...] *= gain
        nets["s2"][:, nets.size.width :] *= gain
    elif args.towards_fits:
        parser.error("--towards-fits needs --init: nets that were trained together first")
    kind = Reptile if args.towards_fits else SharedFit
    kind(nets, args.rate_weight, args.data, args.side, args.seed).train(args.minutes, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
