"""In which numbers networks compute: float32, or bfloat16 where the processor multiplies it and little is lost."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from ..entropy.errors import InputError

Precision = Literal["fp32", "bf16"]
AnyPrecision = Literal["auto", "fp32", "bf16"]


def check_precision(precision: str, *more: str) -> None:
    """Raises InputError unless networks can run in this precision, or it is one of ``more`` words."""
    known = (*more, "fp32", "bf16")
    if precision not in known:
        raise InputError(f"precision is {precision!r}; one of {', '.join(map(repr, known))}")


@lru_cache
def multiplies_bfloat16(device: str = "cpu") -> bool:
    """Whether products of bfloat16 are faster there than those of float32: on a GPU, with AVX-512 BF16 or AMX."""
    import torch

    if device.partition(":")[0] != "cpu":
        return True
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
