"""What changed between two benchmark files."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
history: Any = importlib.import_module("bench.history")

BEFORE = {
    "lossless.bytes.PNG": 1000.0, "lossless.encode_mb_s.PNG": 4.0, "rd.hyperprior.bd_rate_vs_avif_pct": 1.0,
    "audio.snr_vs_opus_db": 12.0, "speed.encode_vs_walloc_1": 2.0, "entropy.thread_scaling": 1.7, "gone": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "way", "timed"),
    [
        ("lossless.bytes.lossless, effort 5", -1, False), ("lossless.encode_mb_s.PNG", 1, True),
        ("rd.bd_rate_vs_avif_pct", -1, False), ("overfit.encode_s_per_mp", -1, True), ("overfit.decode_mp_s", 1, True),
        ("audio.logmel_vs_opus_32k", -1, False), ("audio.pesq_vs_opus", 1, False), ("audio.encode_x_realtime", 1, True),
        ("entropy.encode_vs_compressai", 1, True), ("features.embeddings_bytes_vs_pq", -1, False),
        ("x.count", 0, False),
    ],
)  # fmt: skip
def test_names_say_what_is_better(name, way, timed):
    assert (history.direction(name), history.timed(name)) == (way, timed)


@pytest.mark.parametrize(
    ("name", "after", "verdict"),
    [
        ("lossless.bytes.PNG", 1010.0, "worse"), ("lossless.bytes.PNG", 1004.0, ""),
        ("lossless.bytes.PNG", 900.0, "better"),
        ("lossless.encode_mb_s.PNG", 3.7, ""), ("lossless.encode_mb_s.PNG", 3.5, "worse"),
        ("rd.hyperprior.bd_rate_vs_avif_pct", 1.6, "worse"), ("rd.hyperprior.bd_rate_vs_avif_pct", -2.0, "better"),
        ("audio.snr_vs_opus_db", 11.9, "worse"), ("audio.snr_vs_opus_db", 11.97, ""),
        ("speed.encode_vs_walloc_1", 2.5, "better"), ("gone", None, ""),
    ],
)  # fmt: skip
def test_verdicts(name, after, verdict):
    now = {**BEFORE, name: after}
    changes = {c.name: c for c in history.compare({"summary": BEFORE}, {"summary": now})}
    assert changes[name].worse == (verdict == "worse")
    assert changes[name].better == (verdict == "better")
    assert sum(c.worse or c.better for c in changes.values()) == bool(verdict)


def _script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_two_files_are_compared(tmp_path):
    slower = BEFORE | {"speed.encode_vs_walloc_1": 1.0, "new": 3.0}
    del slower["gone"]
    for name, summary in (("a", BEFORE), ("b", slower)):
        machine = {"cpu": f"processor {name}", "commit": name}
        (tmp_path / f"{name}.json").write_text(json.dumps({"kind": "all", "machine": machine, "summary": summary}))
    a, b = (str(tmp_path / f"{n}.json") for n in "ab")
    done = _script("compare", a, b)
    assert done.returncode == 1, done.stderr
    assert "| speed.encode_vs_walloc_1 | 2 | 1 | -50.0 % |" in done.stdout
    assert "another processor" in done.stdout
    assert "| new | - | 3 | new |" in done.stdout
    assert "| gone | 1 | - | gone |" in done.stdout
    assert _script("compare", a, b, "--tolerance", "60").returncode == 0
    assert _script("compare", a, a).returncode == 0
    assert _script("compare", a).returncode == 2
    assert _script("rd", a).returncode == 2


def test_a_kind_that_fails_does_not_keep_the_next_from_running(tmp_path, monkeypatch):
    fake = tmp_path / "benchmark.py"
    fake.write_text(
        "import json, pathlib, sys\n"
        "if sys.argv[1] == 'bad': sys.exit('it broke')\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--json') + 1])\n"
        "out.write_text(json.dumps({'summary': {'a': {'psnr': 30}, 'text': 'no', 'quick': '--quick' in sys.argv}}))\n"
    )
    monkeypatch.setattr(history, "_SCRIPT", fake)
    result = history.run_all(True, [1], ("bad", "good"))
    assert result["failed"] == {"bad": "it broke\n"}
    assert result["summary"] == {"good.a.psnr": 30}
    assert "bad failed: it broke" in result["markdown"]
    assert set(result["seconds"]) == {"bad", "good"}
