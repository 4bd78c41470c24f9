"""In which numbers networks are trained: bfloat16 where the processor multiplies it, float32 elsewhere."""

from __future__ import annotations

import torch

from ..codecs.precision import multiplies_bfloat16


def mixed(device: torch.device) -> torch.autocast:
    """The context that networks run in while they train: autocast to bfloat16, or nothing at all."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=multiplies_bfloat16(device.type))
