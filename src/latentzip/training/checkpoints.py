"""Small checkpoints: weights and averaged weights in few bits, so that a long run fits a mail and goes on elsewhere.

The average, which is what is validated and released, is kept as float16 without its last bit, in two planes of bytes,
since deflate shortens them; the weights, which lie close to it, as differences in steps of a third of their tensor's
deviation. That is 2.2 bytes a parameter, for a release that rounds most of them to one. No moments of the optimiser: a
run that goes on from here warms up again. A file is a zip of plain arrays (`numpy.load` reads it without pickle).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..codecs.outputs import write_file
from ..entropy.errors import FormatError

_STEPS = 3  # steps of the grid in a deviation: a hundredth of the difference's power is lost


def _short(value: Tensor) -> np.ndarray:
    """float16 bits as (n,) uint16, the last one zero: floats rounded to nine bits of mantissa, ties to even."""
    bits = value.float().cpu().contiguous().numpy().reshape(-1).view(np.uint32)
    bits = (bits + np.uint32(0x1FFF) + ((bits >> 14) & 1)) & np.uint32(0xFFFFC000)
    return bits.view(np.float32).astype(np.float16).view(np.uint16)


def write_small(path: Path, average: Mapping[str, Tensor], weights: Mapping[str, Tensor], about: dict[str, Any]) -> int:
    """Write a small checkpoint whole or not at all.

    Args:
        average, weights: two states of the same names and shapes.
        about: what goes along, as JSON.

    Returns:
        Its size in bytes.
    """
    arrays: dict[str, np.ndarray] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    for key, value in average.items():
        arrays[f"shape:{key}"] = np.array(value.shape, np.int64)
        if not value.is_floating_point():
            arrays[f"whole:{key}"] = value.cpu().numpy().reshape(-1)
            continue
        bits = _short(value)
        arrays[f"average:{key}"] = np.ascontiguousarray(bits.view(np.uint8).reshape(-1, 2).T)
        kept = torch.from_numpy(bits.view(np.float16).astype(np.float32)).view(value.shape)
        difference = weights[key].float().cpu() - kept
        scale = float(difference.square().mean().sqrt()) / _STEPS
        if scale > 0 and np.isfinite(scale):
            arrays[f"scale:{key}"] = np.array(scale, np.float32)
            arrays[f"weights:{key}"] = (difference / scale).round().clamp(-127, 127).to(torch.int8).numpy().reshape(-1)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    write_file(path, file.getvalue())
    return len(file.getbuffer())


def read_small(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Average, weights and what came along, as `write_small` took them.

    Raises:
        FormatError: not a small checkpoint.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        about = json.loads(arrays["about"].tobytes())
        average, weights = {}, {}
        for key, shape in ((k.removeprefix("shape:"), v.tolist()) for k, v in arrays.items() if k.startswith("shape:")):
            if f"whole:{key}" in arrays:
                average[key] = weights[key] = torch.from_numpy(arrays[f"whole:{key}"].reshape(shape))
                continue
            halves = np.ascontiguousarray(arrays[f"average:{key}"].T).view(np.float16)
            average[key] = torch.from_numpy(halves.astype(np.float32).reshape(shape))
            weights[key] = average[key]
            if f"scale:{key}" in arrays:
                difference = torch.from_numpy(arrays[f"weights:{key}"].reshape(shape)).float()
                weights[key] = average[key] + difference * float(arrays[f"scale:{key}"])
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path} is no small checkpoint: {error}") from error
    return average, weights, about
