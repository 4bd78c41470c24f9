"""GPU bodies of the kernels, in Triton: each computes what the function of the same name above it defines.

They start on the tensors' device, need no compiler at install time, and are chosen by `usable`; without a GPU or
without Triton no kernel is imported. TRITON_INTERPRET=1 runs them step by step on the CPU, for tests.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.util import find_spec

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
HAS_TRITON = find_spec("triton") is not None


def usable(*tensors: Tensor) -> bool:
    """Whether tensors have a GPU body: on a CUDA device, of a dtype up to float32, Triton installed."""
    return all(t.is_cuda and t.dtype in FLOATS for t in tensors) and HAS_TRITON


def on(x: Tensor) -> AbstractContextManager[None]:
    """Kernels start on the device of their tensors, whichever is current."""
    return torch.cuda.device(x.device if x.is_cuda else -1)
