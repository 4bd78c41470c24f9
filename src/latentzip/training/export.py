"""From a checkpoint to a release: round the weights, fit the entropy model, measure on files, write card and index."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from .. import pretrained
from ..codecs import storage
from ..codecs.base import BaseCodec, Codec
from ..codecs.outputs import write_file
from ..entropy import schema
from ..entropy.errors import InputError
from .data import EXTENSIONS, list_images, load_all, read_all
from .report import Log
from .sources import Folders, list_sources

_TEXT = schema.text()
_INDEX = schema.record({
    "codecs": schema.array(schema.record({"name": _TEXT, "version": _TEXT, "current": schema.boolean}), 10_000)
})  # fmt: skip


QUALITIES = (10, 25, 50, 75, 95)  # where codecs of a variable rate are measured


def pick_pictures(data: Folders, count: int) -> list[Tensor]:
    """Up to ``count`` pictures (3, H, W) float32 in [0, 1], spread evenly over folders or zip files.

    A third of them is halved, so that an entropy model also sees sharper detail.
    """
    sources = list_sources(data, EXTENSIONS)
    picked = [sources[i] for i in np.linspace(0, len(sources) - 1, min(count, len(sources))).astype(int)]
    pictures = []
    for i, (_, image) in enumerate(read_all(picked)):
        x = torch.tensor(image).permute(2, 0, 1).float() / 255
        if i % 3 == 2 and min(x.shape[1:]) > 1:
            x = torch.nn.functional.interpolate(x[None], scale_factor=0.5, mode="area")[0]
        pictures.append(x)
    if not pictures:
        raise InputError(f"no pictures in {data} to fit the entropy model to")
    return pictures


def measure(codec: Codec, folder: str, quality: int | None = None) -> dict[str, float]:
    """Real files of every picture in a folder: mean bits per pixel (container included) and mean 8-bit PSNR in dB."""
    bpp, psnr = [], []
    for image in load_all(folder):
        x = torch.tensor(image).permute(2, 0, 1).float() / 255
        stream = codec.encode(x[None], quality)[0]
        y = codec.decode([stream])[0].mul(255).round()
        bpp.append(8 * len(stream) / (image.shape[0] * image.shape[1]))
        psnr.append(10 * math.log10(255**2 / max(1e-9, (y - x * 255).square().mean().item())))
    if not bpp:
        raise InputError(f"no pictures in {folder} to measure on")
    return {"bpp": round(float(np.mean(bpp)), 4), "psnr": round(float(np.mean(psnr)), 3)}


def measure_folders(
    codec: Any, folders: dict[str, str], qualities: tuple[int, ...] = QUALITIES, log: Log = print
) -> dict[str, Any]:
    """Rates and PSNR of the pictures of folders, by what the figures are called; of a codec of one rate at that."""
    results: dict[str, Any] = {}
    for label, folder in folders.items():
        for quality in qualities if codec.variable_rate else [None]:
            key = f"{label}_q{quality}" if quality else label
            found = measure(codec, folder, quality)
            results |= {f"{key}_{name}": figure for name, figure in found.items()}
            log(f"{key}: {found['bpp']} bpp, {found['psnr']} dB")
    return results


def named_folders(val: str | None, test: str | None) -> dict[str, str]:
    """Folders that are given, by the name of their figures."""
    return {label: folder for label, folder in (("val", val), ("kodak", test)) if folder}


def export(
    trainer: Any,
    out: Path,
    *,
    data: Folders,
    val: str | None,
    test: str | None,
    version: str,
    about_data: str = "Say here what the model was trained on: sources, licences, what is rare or missing.",
    pictures: int = 240,
    qualities: tuple[int, ...] = QUALITIES,
    log: Log = print,
    **release_options: Any,
) -> Path:
    """Write ``NAME-vVERSION.safetensors``, its card and the index entry into ``out``; returns the weights file.

    Args:
        data, val, test: folders of training, validation and test pictures.
        pictures: how many training pictures the entropy model is fitted to.
        qualities: where a codec of variable rate is measured.
        release_options: go to the trainer's ``release``.
    """
    tensors, metadata = trainer.release(pick_pictures(data, pictures), log, **release_options)

    def measured(codec: Any) -> dict[str, Any]:
        return measure_folders(codec, named_folders(val, test), qualities, log)

    fitted = f"{min(pictures, len(list_images(data)))} training pictures"
    crop = f"{trainer.recipe.crop} px"
    return write_release(trainer, out, tensors, metadata, measured, version, fitted, crop, about_data)


def write_release(
    trainer: Any,
    out: Path,
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
    measured: Callable[[Any], dict[str, Any]],
    version: str,
    fitted: str,
    crop: str,
    about_data: str,
) -> Path:
    """Write a release's weights, card and index entry into ``out``; returns the weights file.

    Args:
        tensors, metadata: as the trainer's ``release`` returns them.
        measured: figures of the codec that the written weights are, for index and card.
        fitted: what the entropy model was fitted to.
        crop: size of the recipe's crops in words.
    """
    recipe = trainer.recipe
    if trainer.origin and not trainer.step and "base" not in metadata:  # the networks are those of a release
        storage.share(tensors, metadata, pretrained.find(recipe.name))
    metadata["trained_by"] = "scripts/train.py"
    metadata["recipe"] = json.dumps(asdict(recipe))
    blob = save(tensors, metadata)
    return write_files(
        out, version, blob, trainer.from_bytes, trainer.loader, recipe.summary, measured,
        lambda codec, rows: _card(trainer, codec, fitted, crop, len(blob), rows, about_data),
    )  # fmt: skip


def write_part(
    stored: tuple[dict[str, Tensor], dict[str, str]], base: pretrained.Entry, out: Path, version: str,
    *, trained_by: str, schedule: Any, from_bytes: Callable[[bytes], Any], measured: Callable[[Any], dict[str, Any]],
    card: str, **facts: Any,
) -> Path:  # fmt: skip
    """Write a release of which a part alone is its own into ``out``; what ``base`` holds stays there. Returns the file.

    Args:
        stored: tensors and metadata of the whole codec.
        trained_by: the module, for the metadata.
        schedule: a dataclass, all that the training depends on; its fields and ``facts`` fill the ``card``, as do
            ``name``, ``base``, ``size`` in MB, ``fingerprint`` and ``rows`` of figures.
        measured: as of `write_files`.
    """
    tensors, metadata = stored
    storage.share(tensors, metadata, base)
    metadata |= {"trained_by": f"latentzip.training.{trained_by}", "recipe": json.dumps(asdict(schedule))}
    blob = save(tensors, metadata)

    def filled(codec: BaseCodec, rows: str) -> str:
        return card.format(
            name=codec.name, base=base.version, size=len(blob) / 1e6, fingerprint=codec.fingerprint.hex(), rows=rows,
            **asdict(schedule), **facts,
        )  # fmt: skip

    return write_files(out, version, blob, from_bytes, base.loader, base.summary, measured, filled)


def write_files(
    out: Path, version: str, blob: bytes, from_bytes: Callable[[bytes], Any], loader: str, summary: str,
    measured: Callable[[Any], dict[str, Any]], card: Callable[[Any, str], str],
) -> Path:  # fmt: skip
    """Write the weights file ``blob``, its card and index entry into ``out``; returns the weights file.

    Args:
        from_bytes: what reads the blob; the others get the codec that it is.
        loader, summary: of the index.
        measured: figures for index and card.
        card: the card's text, from the codec and the figures as rows of a table.
    """
    codec = from_bytes(blob)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{codec.name}-v{version}.safetensors"
    write_file(file, blob)
    results = measured(codec)
    _update_index(out, codec, file, blob, version, loader, summary, results)
    rows = "\n".join(f"| {key} | {value} |" for key, value in results.items())
    (out / f"{codec.name}-v{version}.md").write_text(card(codec, rows))
    return file


def _update_index(
    out: Path, codec: BaseCodec, file: Path, blob: bytes, version: str, loader: str, summary: str,
    results: dict[str, Any],
) -> None:  # fmt: skip
    """Add a release to the index in ``out``; it becomes its codec's current one."""
    path = out / "index.json"
    entries = schema.parse(path.read_bytes(), str(path), _INDEX)["codecs"] if path.exists() else []
    entries = [e for e in entries if (e["name"], e["version"]) != (codec.name, version)]
    for entry in entries:
        if entry["name"] == codec.name:
            entry["current"] = False
    entries.append(
        {
            "name": codec.name,
            "version": version,
            "file": file.name,
            "sha256": hashlib.sha256(blob).hexdigest(),
            "fingerprint": codec.fingerprint.hex(),
            "loader": loader,
            "modality": codec.modality,
            "summary": summary,
            "fixed_rate": not codec.variable_rate,
            "current": True,
            "results": results,
        }
    )
    write_file(path, (json.dumps({"codecs": entries}, indent=1) + "\n").encode())


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 1800 else f"{seconds / 60:.1f} min"


def _card(trainer: Any, codec: BaseCodec, fitted: str, crop: str, size: int, rows: str, data: str) -> str:
    recipe = trainer.recipe
    parameters = sum(p.numel() for p in codec.state_dict().values())
    threads = torch.get_num_threads()
    device = trainer.trained_on if trainer.trained_on != "CPU" else f"CPU ({threads} threads)"
    training = "| training | none: principal components of the wavelet bands, least-squares decoder |"
    if trainer.origin and not trainer.step:
        training = f"| training | {trainer.origin}; only the networks of the entropy model are its own |"
    elif trainer.step:
        training = (
            f"| loss | {trainer.describe_loss()} |\n"
            f"| training | {trainer.step} steps of {recipe.batch} crops of {crop}, "
            f"{_duration(trainer.seconds)} on {device}, seed {recipe.seed}"
            + (f", {trainer.origin} |" if trainer.origin else " |")
        )
    return f"""# {codec.name}

| | |
|---|---|
| architecture | {trainer.describe(codec)} |
| parameters | {parameters / 1e6:.2f} M, {size / 1e6:.2f} MB with the entropy model |
| fingerprint | `{codec.fingerprint.hex()}` |
{training}
| entropy model | {trainer.describe_entropy(fitted)} |

## Measured on files (container included)

| | |
|---|---|
{rows}

## Data

{data}
"""
