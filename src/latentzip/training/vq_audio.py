"""Codebooks of the codec `vq-audio`, fitted without gradients to latents of a WaLLoC codec of sound: minutes on a CPU.

    python -m latentzip.training.vq_audio --data sounds/ --export weights/

As `training.vq`; principal components are those of the samples' error, in which quiet bands count for more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..codecs.registry import load_codec
from ..codecs.vq.audio import VqAudio, VqAudioConfig, from_bytes, round_weights, to_tensors
from ..codecs.vq.residual import DEFAULT, Schedule
from ..codecs.walloc.audio import WallocAudio
from ..entropy.errors import InputError
from .audio_data import list_sounds, load_stereo
from .sources import Folders
from .vq import Release, add_options, export, fit_codebooks, set_components
from .vq_prior import fit_prior
from .walloc_audio import measure

TRUNK = "walloc-audio-20x"
TABLES = 24
_QUIET = 0.4  # power of a band to which its errors count inversely
Log = Callable[[str], None]


def started(trunk: WallocAudio, config: VqAudioConfig, name: str) -> VqAudio:
    """A codec around a trunk, without codebooks."""
    t = trunk.config
    codec = VqAudio(
        replace(config, packet=t.levels, latent=t.latent_channels, width=t.width, net=t.depth, wavelet=t.wavelet), name
    )
    own = codec.state_dict()
    codec.load_state_dict({k: v for k, v in trunk.state_dict().items() if k in own}, strict=False)
    return codec.eval()


@torch.inference_mode()
def features(codec: VqAudio, sounds: Folders) -> list[Tensor]:
    """(frames, M) float32 of each sound of a folder or several, at level 1."""
    out = []
    for path in list_sounds(sounds):
        x = torch.from_numpy(load_stereo(path)[0])
        if float(x.abs().max()) > 0:
            out.append(codec.trunk_features(x[None] / x.abs().max())[0])
    if not out:
        raise InputError(f"no sounds in {sounds}")
    return out


def metric(codec: VqAudio, rows: Tensor) -> Tensor:
    """(M, M) float64: what errors of features cost, by the linear part of the decoder and the power of its bands."""
    c = codec.config
    linear = codec.decoder.linear.weight.detach().flatten(1).double()
    frames = rows.unflatten(1, (c.latent, c.frames)).transpose(1, 2).flatten(0, 1).double()
    power = ((linear @ (frames.T @ frames / len(frames))) * linear).sum(1)
    weight = (power / power.mean()).clamp_min(1e-6) ** -_QUIET
    return torch.kron((linear.T * weight) @ linear, torch.eye(c.frames).double())


def fit(
    trunk: WallocAudio, config: VqAudioConfig, data: Folders, *, schedule: Schedule = DEFAULT, seed: int = 1,
    steps: int = 300, name: str = "vq-audio", log: Log = print,
) -> VqAudio:  # fmt: skip
    """A codec fitted to the sounds of a folder or several; arguments as `training.vq.fit`.

    Raises:
        InputError: no sounds, or too few for a codebook.
    """
    codec = started(trunk, config, name)
    found = features(codec, data)
    rows = torch.cat(found)
    log(f"{len(found)} sounds, {len(rows)} frames")
    set_components(codec, rows, metric(codec, rows))
    with torch.no_grad():
        round_weights(codec)
    fit_codebooks(codec, rows, schedule, seed, round_weights, log)
    grids = [codec.named(item, codec.depth)[:, None].numpy().astype(np.int16) for item in found]
    codec.prior = fit_prior(grids, codec.entries, steps, seed, log, TABLES)
    return codec


SUMMARY = "sound as discrete tokens, nested levels of codebooks at 43 a second: for generative models and small files"


def figures(codec: VqAudio, folders: dict[str, str], log: Log = print) -> dict[str, Any]:
    """Rates, SNR and log-mel distance of the sounds of folders, by what the figures are called."""
    results = {}
    for label, folder in folders.items():
        sounds = [(torch.from_numpy(x), rate) for x, rate in map(load_stereo, list_sounds(folder))]
        for quality in (25, 50, 75, 100):
            found = measure(codec, sounds, quality)
            results |= {f"{label}_q{quality}_{key}": value for key, value in found.items()}
            log(f"{label}_q{quality}: {found}")
    return results


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", required=True, help="folders of training sounds")
    parser.add_argument("--trunk", default=TRUNK, help="the codec whose latents are quantised")
    parser.add_argument("--frames", type=int, default=VqAudioConfig.frames, help="of the trunk in a token")
    parser.add_argument("--levels", type=int, default=VqAudioConfig.levels)
    parser.add_argument("--entries", type=int, default=VqAudioConfig.entries, help="codewords of a codebook")
    parser.add_argument("--components", type=int, default=VqAudioConfig.components, help="that are quantised")
    add_options(parser)
    parser.add_argument("--val", help="folder of validation sounds")
    parser.add_argument("--test", help="folder of test sounds for the figures of the card")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    trunk = load_codec(args.trunk)
    if not isinstance(trunk, WallocAudio):
        raise InputError(f"{args.trunk} is no WaLLoC codec of sound")
    config = VqAudioConfig(frames=args.frames, levels=args.levels, entries=args.entries, components=args.components)
    codec = fit(trunk, config, args.data, schedule=replace(DEFAULT, price=args.price), seed=args.seed, steps=args.steps)
    folders = {label: folder for label, folder in (("val", args.val), ("test", args.test)) if folder}
    release = Release(
        "latentzip.codecs.vq.audio:load_bundled", SUMMARY, "training/vq_audio.py", ", 43 a second", to_tensors,
        from_bytes, lambda codec: figures(codec, folders),
    )  # fmt: skip
    print(export(codec, args.export, args.trunk, args.about_data, release))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
