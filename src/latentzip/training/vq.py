"""Codebooks of the codec `vq`, fitted without gradients to the features of a codec that ships: minutes on a CPU.

    python -m latentzip.training.vq --data pictures/ --export weights/

Principal components are those of the pixels' error, as far as the linear part of the synthesis tells it. Then a
codebook a level (`codecs.vq.residual`), and last the prior of the tokens (`vq_prior`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from .. import pretrained
from ..codecs import storage
from ..codecs.features import transforms
from ..codecs.hyperprior import HyperpriorCodec
from ..codecs.registry import load_codec
from ..codecs.vq.blocks import CELLS, from_blocks, to_blocks
from ..codecs.vq.codec import VqCodec, VqConfig, from_bytes, round_weights, to_tensors
from ..codecs.vq.residual import DEFAULT, Schedule, fit_level, nearest, usage
from ..codecs.vq.tokens import TokenCodec
from ..entropy.errors import InputError
from .data import EXTENSIONS, read_all
from .export import measure_folders, named_folders, write_files
from .sources import Folders, list_sources
from .vq_prior import fit_prior

_CROP = 640
_ROWS = 1 << 17  # rows of features that codebooks are fitted to, at most
TRUNK = "hyperprior-fast"
Log = Callable[[str], None]


def crops(data: Folders, seed: int, side: int = _CROP) -> list[Tensor]:
    """A crop of each picture of at least 128 pixels a side, (3, H, W) uint8, sides multiples of 64."""
    rng, out = np.random.default_rng(seed), []
    for _, image in read_all(list_sources(data, EXTENSIONS)):
        h, w = (min(n // 64 * 64, side) for n in image.shape[:2])
        if min(h, w) < 128:
            continue
        y, x = (int(rng.integers(0, n - m + 1)) for n, m in zip(image.shape[:2], (h, w)))
        out.append(torch.tensor(image[y : y + h, x : x + w]).permute(2, 0, 1))
    if not out:
        raise InputError(f"no pictures of 128 pixels a side in {data}")
    return out


def started(trunk: HyperpriorCodec, config: VqConfig, name: str) -> VqCodec:
    """A codec around a trunk, without codebooks.

    Raises:
        InputError: a trunk with the region-adaptive transform.
    """
    t = trunk.config
    if t.region:
        raise InputError(f"{trunk.name} has a region-adaptive transform: choose another trunk")
    sizes = {"width": t.width, "analysis_depth": t.analysis_depth, "synthesis_depth": t.synthesis_depth}
    codec = VqCodec(replace(config, latent=t.latent, **sizes), name)
    own = codec.state_dict()
    codec.load_state_dict({k: v for k, v in trunk.state_dict().items() if k in own}, strict=False)
    return codec.eval()


@torch.inference_mode()
def features(codec: VqCodec, picture: Tensor) -> Tensor:
    """(h * w, M) float32 of a picture (3, H, W) uint8, sides multiples of 16."""
    x = picture[None].float() / 255 - 0.5
    quality = torch.full((1,), float(codec.config.trunk_quality))
    return codec.analysis_transform(x, quality, codec.std)[0].flatten(1).T


@torch.no_grad()
def fit_components(codec: VqCodec, rows: Tensor) -> None:
    """Set mean and components from features (n, M): errors count as they do in pixels."""
    linear = codec.synthesis_transform.linear.weight.detach().flatten(1).double()
    set_components(codec, rows, linear.T @ linear / linear.shape[0])


@torch.no_grad()
def set_components(codec: TokenCodec, rows: Tensor, metric: Tensor) -> None:
    """Mean and principal components of features (n, M) whose errors e count as e @ metric @ e."""
    mean, second = transforms.covariance(rows)
    synthesis, _ = transforms.fit(mean, second, metric)
    synthesis = synthesis[: codec.from_components.shape[0]]
    codec.mean.copy_(mean)
    codec.from_components.copy_(synthesis)
    codec.to_components.copy_(metric @ synthesis.T)


@torch.no_grad()
def fit_codebooks(
    codec: TokenCodec, rows: Tensor, schedule: Schedule, seed: int, keep: Callable[[Any], None], log: Log
) -> None:
    """Set codewords and prices from features (n, M), level by level; ``keep`` rounds a codec to what storage keeps."""
    rows = rows[:: -(-len(rows) // _ROWS)]
    fit_rest(codec, (rows - codec.mean) @ codec.to_components, schedule, seed, keep, log)


@torch.no_grad()
def fit_rest(
    codec: TokenCodec, rest: Tensor, schedule: Schedule, seed: int, keep: Callable[[Any], None], log: Log
) -> None:
    """The same from what is left of components (n, C) for the levels that are not coarse."""
    generator = torch.Generator().manual_seed(seed)
    for book in range(CELLS * codec.coarse, len(codec.codewords)):
        codec.codewords[book], codec.prices[book] = fit_level(rest, codec.entries, generator, schedule)
        keep(codec)
        found = nearest(rest, codec.codewords[book], codec.prices[book])
        rest = rest - codec.codewords[book][found]
        used, bits = usage(found[None], codec.entries)[0]
        error = float(rest.square().sum(1).mean())
        log(f"codebook {book + 1}: error {error:.3g} a position, {bits:.2f} bits a token, {used} codewords used")


def sample(rows: Tensor, seed: int) -> Tensor:
    """At most so many rows as codebooks are fitted to; drawn, as every n-th may lie in the same cell of its block."""
    if len(rows) <= _ROWS:
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:_ROWS]]


@torch.no_grad()
def fit_blocks(
    codec: VqCodec, pictures: list[tuple[Tensor, tuple[int, int]]], schedule: Schedule, seed: int,
    keep: Callable[[Any], None], log: Log,
) -> list[Tensor]:  # fmt: skip
    """Set the basis of blocks and the codebooks of coarse levels from pictures' components (h * w, C) and their grids;
    returns what these levels leave of the components."""
    blocks = torch.cat([to_blocks(rest, *size) for rest, size in pictures])
    second = blocks.T.double() @ blocks.double() / len(blocks)
    codec.block_basis.copy_(torch.linalg.eigh(second)[1].flip(1).T[: len(codec.block_basis)])
    keep(codec)
    wide = replace(schedule, dimensions=CELLS * schedule.dimensions)
    generator = torch.Generator().manual_seed(seed)
    rest = blocks @ codec.block_basis.T
    beside = float(blocks.square().sum(1).mean() - rest.square().sum(1).mean())
    first, whole = CELLS * codec.coarse, rest.clone()
    for book in range(first):
        rows = sample(rest, seed)
        codec.codewords[book], codec.prices[book] = fit_level(rows, codec.entries, generator, wide, beside)
        keep(codec)
        rest -= codec.codewords[book][nearest(rest, codec.codewords[book], codec.prices[book])]
        left = (float(rest.square().sum(1).mean()) + beside) / CELLS
        log(f"coarse codebook {book + 1}: error {left:.3g} a position")
    parts = ((whole - rest) @ codec.block_basis).split([len(rest) // CELLS for rest, _ in pictures])
    return [rest - from_blocks(part, *size) for (rest, size), part in zip(pictures, parts)]


def fit(
    trunk: HyperpriorCodec, config: VqConfig, data: Folders, *, schedule: Schedule = DEFAULT, seed: int = 1,
    steps: int = 300, name: str = "vq", log: Log = print,
) -> VqCodec:  # fmt: skip
    """A codec fitted to the pictures of a folder or several.

    Args:
        schedule: of a codebook. steps: of the prior, a level.

    Raises:
        InputError: no pictures, or too few for a codebook.
    """
    codec = started(trunk, config, name)
    found = [(features(codec, x), (x.shape[1] // 16, x.shape[2] // 16)) for x in crops(data, seed)]
    rows = torch.cat([f for f, _ in found])
    log(f"{len(found)} pictures, {len(rows)} positions")
    fit_components(codec, rows)
    round_weights(codec)
    if codec.coarse:
        components = [((item - codec.mean) @ codec.to_components, size) for item, size in found]
        rest = torch.cat(fit_blocks(codec, components, schedule, seed, round_weights, log))
        fit_rest(codec, sample(rest, seed), schedule, seed, round_weights, log)
    else:
        fit_codebooks(codec, rows, schedule, seed, round_weights, log)
    planes = [codec.planes(item, codec.depth, size).numpy().astype(np.int16) for item, size in found]
    codec.prior = fit_prior(planes, codec.config.entries, steps, seed, log, coarse=codec.coarse)
    return codec


@torch.no_grad()
def trimmed(codec: VqCodec, components: int) -> VqCodec:
    """The codec with the first of its components only: what is left out of the codewords is hardly ever named."""
    if not 1 <= components <= codec.config.components:
        raise InputError(f"{components} components are to be kept, the codec has {codec.config.components}")
    out = VqCodec(replace(codec.config, components=components), codec.name).eval()
    own, given = out.state_dict(), codec.state_dict()
    out.load_state_dict({k: v for k, v in given.items() if own[k].shape == v.shape}, strict=False)
    out.to_components.copy_(codec.to_components[:, :components])
    out.from_components.copy_(codec.from_components[:components])
    out.codewords.copy_(codec.codewords[:, :, :components])
    if codec.coarse:
        blocks = codec.block_basis[:components].unflatten(1, (CELLS, -1))
        out.block_basis.copy_(blocks[:, :, :components].flatten(1))
    out.prior = codec.prior
    round_weights(out)
    return out


SUMMARY = (
    "photos as discrete tokens, nested levels of codebooks at 1/32 and 1/16: for generative models and small files"
)
_CARD = """# {name}

| | |
|---|---|
| architecture | analysis and synthesis of `{trunk}`; {levels} of {entries}{where}, {components} components |
| here | {size:.2f} MB; the trunk's weights are those of `{trunk}` |
| fingerprint | `{fingerprint}` |
| training | residual k-means with prices and dead-entry revival, no gradients (`{script}`) |
| prior | integer scores of known tokens choose one of {tables} tables a codebook (`training/vq_prior.py`) |

## Measured on files (container included)

| | |
|---|---|
{rows}

## Data

{data}
"""


@dataclass(frozen=True)
class Release:
    """What differs between the kinds of signal when a codec is written.

    Attributes:
        loader, summary: of the index. script, where: of the card.
        to_tensors, from_bytes: the storage of the family.
        measured: codec -> figures.
    """

    loader: str
    summary: str
    script: str
    where: str
    to_tensors: Callable[[Any], tuple[dict[str, Tensor], dict[str, str]]]
    from_bytes: Callable[[bytes], Any]
    measured: Callable[[Any], dict[str, Any]]


def export(codec: Any, out: Path, trunk: str, about_data: str, release: Release, version: str = "1") -> Path:
    """Write weights, card and index entry into ``out``; returns the weights file."""
    tensors, metadata = release.to_tensors(codec)
    storage.share(tensors, metadata, pretrained.find(trunk))
    metadata["trained_by"] = f"latentzip.{release.script.removesuffix('.py').replace('/', '.')}"
    blob = save(tensors, metadata)
    levels = f"{codec.depth - codec.coarse} codebooks"
    if codec.coarse:
        levels = f"{CELLS * codec.coarse} codebooks at half the resolution, {levels}"

    def card(codec: Any, rows: str) -> str:
        return _CARD.format(
            name=codec.name, trunk=trunk, size=len(blob) / 1e6, fingerprint=codec.fingerprint.hex(),
            tables=codec.prior.tables, rows=rows, data=about_data, levels=levels, entries=codec.entries,
            components=codec.config.components, script=release.script, where=release.where,
        )  # fmt: skip

    return write_files(out, version, blob, release.from_bytes, release.loader, release.summary, release.measured, card)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of fitting that do not hang on the kind of signal."""
    parser.add_argument("--price", type=float, default=DEFAULT.price, help="of a bit: more gives sparser tokens")
    parser.add_argument("--steps", type=int, default=300, help="of the prior, a level")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, default=Path("."), metavar="DIR")
    parser.add_argument("--about-data", default="Say here what the codebooks were fitted to.", help="for the card")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", required=True, help="folders of training pictures")
    parser.add_argument("--trunk", default=TRUNK, help="the codec whose features are quantised")
    parser.add_argument("--trunk-quality", type=int, default=VqConfig.trunk_quality, help="at which it runs")
    parser.add_argument("--levels", type=int, default=16)
    parser.add_argument("--coarse", type=int, default=1, help="of the levels, at half the resolution")
    parser.add_argument("--entries", type=int, default=256, help="codewords of a codebook")
    parser.add_argument("--components", type=int, default=96, help="of the features that are quantised")
    parser.add_argument("--keep", type=int, metavar="N", help="of the components, once all is fitted: smaller weights")
    add_options(parser)
    parser.add_argument("--version", default="1", help="of the release in the folder of --export")
    parser.add_argument("--val", help="folder of validation pictures")
    parser.add_argument("--test", help="folder of test pictures for the figures of the card")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    trunk = load_codec(args.trunk)
    if not isinstance(trunk, HyperpriorCodec):
        raise InputError(f"{args.trunk} is no hyperprior codec")
    config = VqConfig(
        trunk_quality=args.trunk_quality, levels=args.levels, entries=args.entries, components=args.components,
        coarse=args.coarse,
    )  # fmt: skip
    codec = fit(trunk, config, args.data, schedule=replace(DEFAULT, price=args.price), seed=args.seed, steps=args.steps)
    codec = trimmed(codec, args.keep) if args.keep else codec
    folders = named_folders(args.val, args.test)
    release = Release(
        "latentzip.codecs.vq.codec:load_bundled", SUMMARY, "training/vq.py", " at 1/16", to_tensors, from_bytes,
        lambda codec: measure_folders(codec, folders, (25, 50, 75, 100)),
    )  # fmt: skip
    print(export(codec, args.export, args.trunk, args.about_data, release, args.version))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
