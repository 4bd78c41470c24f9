"""Kernels on a GPU, or step by step on the CPU where TRITON_INTERPRET=1 asks for Triton's interpreter.

Tests marked ``hardware`` need the GPU; `tests/kernels/test_cuda_interpreter.py` runs the others without one.
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_configure(config):
    config.addinivalue_line("markers", "hardware: needs a CUDA device")


def pytest_collection_modifyitems(config, items):
    del config
    for item in items:
        if "gpu" not in item.path.parts:
            continue
        if not torch.cuda.is_available() and (item.get_closest_marker("hardware") or not INTERPRETED):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def device():
    return torch.device("cpu" if INTERPRETED else "cuda")
