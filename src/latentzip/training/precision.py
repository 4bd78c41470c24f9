"""In which numbers networks are trained: bfloat16 where the processor multiplies it, float32 elsewhere."""

from __future__ import annotations

from functools import lru_cache

import torch


@lru_cache
def multiplies_bfloat16() -> bool:
    """Whether this machine's CPU has products of bfloat16; emulated ones take ten times as long as float32."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def mixed(device: torch.device) -> torch.autocast:
    """The context that networks run in while they train: autocast to bfloat16, or nothing at all."""
    fast = device.type != "cpu" or multiplies_bfloat16()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)
