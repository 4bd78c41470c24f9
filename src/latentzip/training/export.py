"""From a checkpoint to a release: round the weights, fit the entropy model, measure on files, write card and index."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ..codecs.base import Codec
from ..codecs.walloc import Walloc, from_bytes, round_weights, to_tensors
from ..entropy.context import ContextModel
from .data import list_images, load_rgb
from .walloc import Trainer

Log = Callable[[str], None]


def training_latents(model: Walloc, folder: str, count: int, qualities: list[int | None]) -> list[np.ndarray]:
    """Latents (L, h, w) of up to ``count`` pictures spread over the folder; qualities are dealt out in turn.

    A third of the pictures is halved first, so that the entropy model also sees sharper detail.
    """
    paths = list_images(folder)
    picked = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    latents = []
    for i, path in enumerate(picked):
        x = torch.tensor(load_rgb(path)).permute(2, 0, 1).float() / 255
        if i % 3 == 2:
            x = torch.nn.functional.interpolate(x[None], scale_factor=0.5, mode="area")[0]
        latents.append(model.latent(x, qualities[i % len(qualities)]).numpy())
    return latents


def measure(codec: Codec, folder: str, quality: int | None = None) -> dict[str, float]:
    """Real files of every picture in a folder: mean bits per pixel (container included) and mean 8-bit PSNR in dB."""
    bpp, psnr = [], []
    for path in list_images(folder):
        image = load_rgb(path)
        x = torch.tensor(image).permute(2, 0, 1).float() / 255
        stream = codec.encode(x[None], quality)[0]
        y = codec.decode([stream])[0].mul(255).round()
        bpp.append(8 * len(stream) / (image.shape[0] * image.shape[1]))
        psnr.append(10 * math.log10(255**2 / (y - x * 255).square().mean().item()))
    return {"bpp": round(float(np.mean(bpp)), 4), "psnr": round(float(np.mean(psnr)), 3)}


def export_walloc(
    trainer: Trainer,
    out: Path,
    *,
    data: str,
    val: str | None,
    test: str | None,
    version: str,
    about_data: str = "Say here what the model was trained on: sources, licences, what is rare or missing.",
    pictures: int = 240,
    log: Log = print,
    fit_options: dict[str, Any] | None = None,
) -> Path:
    """Write ``NAME-vVERSION.safetensors``, its card and the index entry into ``out``; returns the weights file."""
    recipe = trainer.recipe
    model = trainer.averaged()[0].cpu().eval()
    round_weights(model)
    qualities: list[int | None] = [15, 30, 45, 60, 75, 95] if model.variable_rate else [None]
    start = time.time()
    latents = training_latents(model, data, pictures, qualities)
    log(f"{len(latents)} latents in {time.time() - start:.0f} s; fitting the entropy model")
    model.context = ContextModel.fit(latents, chunk=model.chunk, **(fit_options or {}))
    log(f"entropy model fitted after {time.time() - start:.0f} s")
    tensors, metadata = to_tensors(model)
    metadata["trained_by"] = "scripts/train.py"
    metadata["recipe"] = json.dumps(asdict(recipe))
    blob = save(tensors, metadata)
    codec = from_bytes(blob)
    file = out / f"{recipe.name}-v{version}.safetensors"
    file.write_bytes(blob)

    results: dict[str, Any] = {}
    for label, folder in (("val", val), ("kodak", test)):
        if folder:
            for quality in [25, 50, 75, 95] if codec.variable_rate else [None]:
                measured = measure(codec, folder, quality)
                key = f"{label}_q{quality}" if quality else label
                results |= {f"{key}_bpp": measured["bpp"], f"{key}_psnr": measured["psnr"]}
                log(f"{key}: {measured['bpp']} bpp, {measured['psnr']} dB")
    _update_index(out, codec, file, blob, recipe.summary, version, results)
    _write_card(out / f"{recipe.name}-v{version}.md", codec, trainer, len(latents), len(blob), results, about_data)
    return file


def _update_index(
    out: Path, codec: Walloc, file: Path, blob: bytes, summary: str, version: str, results: dict[str, Any]
) -> None:
    path = out / "index.json"
    entries = json.loads(path.read_text())["codecs"] if path.exists() else []
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
            "loader": "latentzip.codecs.walloc:load_bundled",
            "modality": codec.modality,
            "summary": summary,
            "fixed_rate": not codec.variable_rate,
            "current": True,
            "results": results,
        }
    )
    path.write_text(json.dumps({"codecs": entries}, indent=1) + "\n")


def _write_card(
    path: Path, codec: Walloc, trainer: Trainer, pictures: int, size: int, results: dict[str, Any], data: str
) -> None:
    recipe, config = trainer.recipe, codec.config
    parameters = sum(p.numel() for p in codec.parameters())
    reduction = config.channels * 4**config.levels / config.latent_channels
    rows = "\n".join(f"| {key} | {value} |" for key, value in results.items())
    threads = torch.get_num_threads()
    device = "CPU" if trainer.device.type == "cpu" else torch.cuda.get_device_name(trainer.device)
    training = "| training | none: principal components of the wavelet bands, least-squares decoder |"
    if trainer.step:
        training = (
            f"| loss | {recipe.lmbda} * MSE (8-bit scale) + bits per pixel |\n"
            f"| training | {trainer.step} steps of {recipe.batch} crops of {recipe.crop} px, "
            f"{trainer.seconds / 3600:.2f} h on {device} ({threads} threads), seed {recipe.seed} |"
        )
    path.write_text(f"""# {codec.name}

| | |
|---|---|
| architecture | {config.levels}-level {config.wavelet} wavelet packets, linear encoder to \
{config.latent_channels} channels of int8 at 1/{codec.stride} ({reduction:g}x fewer numbers), \
{config.depth} residual blocks of width {config.width} |
| parameters | {parameters / 1e6:.2f} M, {size / 1e6:.2f} MB with the entropy model |
| fingerprint | `{codec.fingerprint.hex()}` |
{training}
| entropy model | fitted on the latents of {pictures} training pictures |

## Measured on files (container included)

| | |
|---|---|
{rows}

## Data

{data}
""")
