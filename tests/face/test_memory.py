"""Encoding takes less than three times what is encoded, above what a small signal takes."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
import numpy as np, torch, latentzip as lz

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def picture(side):
    ramp = (np.arange(side) // 7 % 251).astype(np.uint8)
    x = np.empty((side, side, 3), np.uint8)
    x[:] = ramp[None, :, None]
    x += ramp[:, None, None] // 3
    return x

def rows(count):
    x = torch.empty(count, 256)
    for part in x.split(4096):
        part.normal_()
    return x

kind, options = sys.argv[1], json.loads(sys.argv[2])
make, small, large = {"picture": (picture, 2100, 6000), "tensor": (rows, 5000, 64000)}[kind]
lz.encode(make(small), **options)
before = peak()
signal = make(large)
lz.encode(signal, **options)
print((peak() - before) / signal.nbytes)
"""


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("picture", {"codec": "walloc-rgb-16x"}),
        ("tensor", {"codec": "features", "nmse": 0.01}),
        ("tensor", {"codec": "features", "max_error": 0.1}),
        ("tensor", {"codec": "features"}),
    ],
)
def test_encoding_takes_less_than_three_times_the_signal(kind, options):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, json.dumps(options)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 3
