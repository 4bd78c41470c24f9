"""Wheel and sdist hold what users need and work outside the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(*args, cwd, path=""):
    env = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "latentzip"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not files:
        pytest.skip("not a git checkout")
    for name in files:  # a clean copy: builds leave files behind
        origin, target = ROOT / name, source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_symlink():
            target.symlink_to(os.readlink(origin))
        elif origin.is_file():
            target.write_bytes(origin.read_bytes())
    # the default of `python -m build`: sdist first, wheel from the sdist
    python("-m", "build", "--no-isolation", "--outdir", str(out), str(source), cwd=out)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def weights():
    return sorted(p.name for p in (ROOT / "pretrained").glob("*.safetensors*"))


def test_wheel_has_code_weights_and_tables(archives):
    names = zipfile.ZipFile(archives[0]).namelist()
    assert weights()
    for name in ("index.json", *weights()):
        assert f"latentzip/pretrained/{name}" in names
    for room in ("codecs", "entropy", "kernels"):
        for path in [*ROOT.glob(f"{room}/**/*.py"), *ROOT.glob(f"{room}/*.npz")]:
            assert f"latentzip/{path.relative_to(ROOT).as_posix()}" in names
    assert "latentzip/evaluation/report/web/report.html" in names
    assert "latentzip/py.typed" in names
    assert not [n for n in names if n.startswith(("tests/", "scripts/"))]


def test_sdist_has_tests_and_scripts(archives):
    with tarfile.open(archives[1]) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert {"tests/test_layout.py", "scripts/train.py", "docs/format.md", "LICENSE", "constraints.txt"} <= names


def test_installed_wheel_works_outside_the_checkout(archives, tmp_path):
    site = tmp_path / "site"
    python("-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(archives[0]), cwd=tmp_path)
    script = (
        "import numpy as np, latentzip as lz; from pathlib import Path\n"
        f"assert Path(lz.__file__).is_relative_to({str(site)!r}), lz.__file__\n"
        "x = np.add.outer(np.arange(40), np.arange(56))[..., None].repeat(3, 2).astype(np.uint8)\n"
        "blob = lz.encode(x); y = lz.decode(blob)\n"
        "assert y.shape == x.shape and y.dtype == x.dtype\n"
        "print(len(blob))"
    )
    assert int(python("-c", script, cwd=tmp_path, path=site)) > 0
    listing = python("-m", "latentzip", "list", cwd=tmp_path, path=site)
    assert "walloc-rgb-16x" in listing
