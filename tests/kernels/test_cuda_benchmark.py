"""The benchmark of the GPU says what is missing, and its summary what was measured."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_gpu_it_says_so():
    script = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "gpu"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(script, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 2
    assert "no CUDA device" in result.stderr


def test_a_failure_is_told(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    gpu = importlib.import_module("bench.gpu")
    rows = [
        {"what": "tests", "result": "70 passed", "agree": True},
        {"what": "copy", "ms": 0.5, "gb_s": 4000.0},
        {"what": "packet 2-D analysis, tf32x3", "ms": 1.0, "gb_s": 2400.0},
        {"what": "encode 1080p, bf16", "frames_s": 300.0, "agree": True},
        {"what": "decode 1080p, bf16", "frames_s": 250.0, "agree": True},
    ]
    assert gpu.summarise(rows) == {
        "copy_gb_s": 4000.0,
        "wavelet_vs_copy": 0.6,
        "frames_s_1080p": 250.0,
        "coder_decode_gsym_s": None,
        "agree": True,
    }
    failed = [*rows, {"what": "coder", "failed": "RuntimeError: out of registers"}]
    assert gpu.summarise(failed)["agree"] is False
    assert "| coder | failed: RuntimeError: out of registers |" in gpu.table(failed)
