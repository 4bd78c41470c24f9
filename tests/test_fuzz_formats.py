"""`make fuzz` and the soak, in short: every format is tried, nothing but clear errors comes out."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield
    for name in ("fuzz", "soak"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("seed", [0, 1])
def test_damaged_files_of_every_format(tmp_path, capsys, seed):
    import fuzz  # pyright: ignore[reportMissingImports]

    assert fuzz.run(3, seed, tmp_path) == 0, capsys.readouterr().out


@pytest.mark.usefixtures("scripts")
def test_epochs_keep_memory_and_files_flat(tmp_path):
    import soak  # pyright: ignore[reportMissingImports]

    found = soak.soak(soak._pack(tmp_path), 2)
    assert found["epochs"] >= 6
    assert found["grown"] < soak.ROOM
    assert found["handles"] <= 0
