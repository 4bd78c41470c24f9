"""The benchmark of searching: rows of every effort beside AVIF, and long runs in pieces."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
benchmark: Any = importlib.import_module("benchmark")

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def test_a_run_goes_on_from_an_earlier_one(tmp_path, monkeypatch):
    data, first, second = tmp_path / "data", tmp_path / "first.json", tmp_path / "second.json"
    data.mkdir()
    rows, columns = np.mgrid[0:96, 0:128]
    x = np.stack([2 * rows, columns, 90 + 60 * (columns > 70) + rows % 7], 2)
    Image.fromarray(x.astype(np.uint8)).save(data / "a.png")
    common = ["rd", "--data", str(data), "--side", "64", "--codec", "hyperprior-fast", "--speeds", "6"]
    common += ["--threads", str(torch.get_num_threads())]

    def run(*more: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *common, *more])
        benchmark.main()
        return json.loads(Path(more[-1]).read_text())

    before = run("--effort", "1", "--qualities", "30", "60", "--json", str(first))
    assert {r["level"] for r in before["rows"]} == {"effort 0", "effort 1", "speed 6"}
    assert all(r["pixels"] == 64 * 64 and r["bytes"] > 0 and r["psnr"] > 20 for r in before["rows"])
    figures = before["summary"]["hyperprior-fast effort 1"]
    assert figures["bd_rate_vs_one_pass_pct"] < 0
    effort = importlib.import_module("bench.effort")
    asked: list[int] = []
    measure = effort.ours
    monkeypatch.setattr(effort, "ours", lambda *a: asked.append(a[3]) or measure(*a))
    after = run("--effort", "1", "2", "--qualities", "30", "60", "--reuse", str(first), "--json", str(second))
    assert asked == [2, 2]
    assert all(row in after["rows"] for row in before["rows"])
