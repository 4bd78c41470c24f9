"""codec-cli eval, bench and list as their users call them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip import cli
from latentzip.codecs.hyperprior.options import DEFAULT_QUALITY

pytest.importorskip("scipy")


@pytest.fixture
def run(capsys):
    """Run a command: (exit status, stdout, stderr)."""

    def call(*arguments):
        capsys.readouterr()
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse
            status = stop.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def photos(tmp_path, rgb):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(rgb).save(folder / "a.png")
    Image.fromarray(rgb[::-1].copy()).save(folder / "more" / "b.png")
    return folder


def test_tables_of_a_folder(photos, codec, run):
    status, out, err = run(
        "eval", photos, "-c", "jpeg@20,50,90", "-c", codec, "--metrics", "psnr", "-q", "20,60", "-j", 1
    )
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("Means over 2 pictures")
    assert sum(line.startswith("| jpeg ") for line in lines) == 3
    assert any(line.startswith("Against jpeg") for line in lines)
    assert sum(line.startswith(f"| {codec} ") and " q" in line for line in lines) == 2


def test_json_and_csv(photos, run):
    base = ("eval", photos / "a.png", "-c", "jpeg@50", "-c", "png", "--metrics", "psnr")
    status, out, _ = run(*base, "--json")
    found = json.loads(out)
    assert status == 0
    assert [(r["codec"], r["setting"]) for r in found["rows"]] == [("jpeg", "q50"), ("png", "")]
    assert found["modalities"]["image"]["averages"][1]["lossless"]
    assert found["about"]["latentzip"] == lz.__version__
    rows = list(csv.DictReader(run(*base, "--csv")[1].splitlines()))
    assert [r["codec"] for r in rows] == ["jpeg", "png"]
    assert float(rows[0]["bpp"]) == found["rows"][0]["bpp"]


def test_report_rows_and_resume(photos, tmp_path, run):
    report = tmp_path / "out" / "report.html"
    base = ("eval", photos, "-c", "jpeg@50,90", "--metrics", "psnr", "--report", report)
    status, _, err = run(*base)
    assert status == 2
    assert "does not exist" in err
    report.parent.mkdir()
    assert run(*base)[0] == 0
    assert report.stat().st_size > 10_000
    rows = report.with_suffix(".jsonl")
    assert len(rows.read_text().splitlines()) == 4
    status, _, err = run(*base)
    assert status == 2
    assert "exists" in err
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:3]))
    old = rows.read_text()
    assert run(*base, "--resume")[0] == 0
    assert rows.read_text().startswith(old)
    assert len(rows.read_text().splitlines()) == 4
    assert run(*base, "--force")[0] == 0
    assert sorted(p.name for p in report.parent.iterdir()) == ["report.html", "report.jsonl"]


def test_a_failure_is_a_line_and_status_1(tmp_path, run):
    soundfile = pytest.importorskip("soundfile")
    noise = np.random.default_rng(0).normal(0, 0.1, (4000, 3))
    soundfile.write(tmp_path / "three.wav", noise, 16000)
    status, out, err = run("eval", tmp_path / "three.wav", "-c", "mp3@64", "-c", "flac", "--metrics", "snr", "--quiet")
    assert status == 1
    assert err == "three.wav: mp3 64 kbit/s: mp3 has at most 2 channels, not 3\n"
    assert "flac" in out


def test_one_broken_file_of_a_folder_costs_itself_only(photos, tmp_path, run):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.png", "z.png"):
        (folder / name).write_bytes(next(photos.glob("*.png")).read_bytes())
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "word.wav").write_bytes(b"no sound")
    status, out, err = run("eval", folder, "-c", "jpeg@50", "--metrics", "psnr", "--csv", "--quiet")
    assert status == 1
    assert sorted(line.split(":")[0].rsplit("/", 1)[-1] for line in err.splitlines()) == [
        "cut.png",
        "empty.jpg",
        "word.wav",
    ]
    assert [name for name in ("a.png", "z.png") if name in out] == ["a.png", "z.png"]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("-c", "jpegg"), "did you mean 'jpeg'"),
        (("-c", "jpeg@x"), "numbers like"),
        (("-q", "high"), "numbers like"),
        (("--resume",), "--rows or --report"),
        (("--weights", "mbt2018-mean"), "compressai:MODEL=PATH"),
        (("-c", "png", "--json", "--csv"), "not allowed with"),
    ],
)
def test_wrong_usage(photos, arguments, text, run):
    status, out, err = run("eval", photos, *arguments)
    assert status == 2
    assert text in err
    assert out == ""


def test_inputs_that_are_not_there(tmp_path, run):
    status, _, err = run("eval", tmp_path / "none.png", "-c", "png")
    assert status == 1
    assert "none.png" in err


def test_bench(photos, codec, run):
    status, out, err = run(
        "bench", photos / "a.png", "-c", codec, "-c", "jpeg@80", "--seconds", 0.02, "-j", 1, "--json"
    )
    assert status == 0, err
    found = json.loads(out)
    ours, jpeg = found["rows"]
    assert (ours["codec"], ours["threads"], ours["input"]) == (codec, 1, "a.png")
    assert (jpeg["setting"], jpeg["threads"]) == ("q80", None)
    for row in found["rows"]:
        assert row["shape"] == [37, 53, 3]
        assert row["encode_speed"] > 0
        assert row["decode_speed"] > 0
        assert row["bpp"] > 0
    assert found["machine"]["cores"] >= 1


def test_bench_on_its_own_samples(run):
    pytest.importorskip("soundfile")
    status, out, err = run("bench", "-c", "jpeg", "-c", "flac", "-c", "int8", "--seconds", 0.01)
    assert status == 0, err
    assert "photograph, 1024x1024x3" in out
    assert "plucked strings, 441000x2" in out
    assert "x real time" in out
    assert "activations, 4096x256" in out


def test_bench_says_what_is_wrong(run, tmp_path):
    status, _, err = run("bench", "-c", "walloc-rgb-lineal")
    assert status == 2
    assert "did you mean 'walloc-rgb-linear'" in err
    (tmp_path / "a.png").write_bytes(b"no")
    status, _, err = run("bench", tmp_path / "a.png", "-c", "png")
    assert status == 2
    assert "a.png" in err


def test_list_shows_what_was_measured(run):
    status, out, _ = run("list")
    assert status == 0
    line = next(line for line in out.splitlines() if line.startswith("hyperprior-fast "))
    info = next(i for i in lz.list_codecs() if i.name == "hyperprior-fast")
    measured = [int(key[7:-4]) for key in info.results if key.startswith("kodak_q") and key.endswith("_bpp")]
    near = min(measured, key=lambda q: abs(q - DEFAULT_QUALITY))  # of what is coded when no quality is asked for
    assert f"{info.results[f'kodak_q{near}_bpp']:.2f} bpp" in line
    assert f"{info.results[f'kodak_q{near}_psnr']:.1f} dB" in line


def test_list_shows_speeds_where_they_are_recorded(run, monkeypatch):
    from latentzip.cli import list_codecs
    from latentzip.codecs.registry import CodecInfo

    results = {"q20_kbps": 20.0, "q50_kbps": 64.2, "q20_snr_db": 9.0, "q50_snr_db": 21.27}
    results |= {"encode_x_realtime": 210.4, "decode_x_realtime": 61.0}
    monkeypatch.setattr(list_codecs, "list_codecs", lambda: [CodecInfo("s", "audio", "sounds", False, results)])
    out = run("list")[1]
    assert "64 kbit/s (20..64)" in out
    assert "21.3 dB (9.0..21.3)" in out
    assert "210 / 61 x" in out


def test_help_and_list_need_no_torch():
    program = (
        "import sys; from latentzip import cli\n"
        "for a in (['eval', '--help'], ['bench', '--help'], ['list']):\n"
        "    try: cli.main(a)\n"
        "    except SystemExit: pass\n"
        "sys.exit(int(any(m in sys.modules for m in ('torch', 'numpy', 'PIL', 'scipy'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, env=os.environ, check=False)
    assert done.returncode == 0
