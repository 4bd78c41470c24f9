"""Where LATENTZIP_NO_SKIPS is set, a skipped test fails the run, unless it wants a GPU or its reason is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILE = "import pytest\ndef test_plain(): pass\n@pytest.mark.skip(reason={reason!r})\ndef test_left_out(): pass\n"


@pytest.mark.parametrize(
    ("reason", "strict", "status"),
    [
        ("no browser here", "", 0), ("no browser here", "0", 0), ("no browser here", "1", 1),
        ("no browser here", "no browser|checkout", 0), ("a mood", "no browser|checkout", 1), ("needs a GPU", "1", 0),
    ],
)  # fmt: skip
def test_skips_fail_where_they_are_not_allowed(tmp_path, reason, strict, status):
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "test_one.py").write_text(FILE.format(reason=reason))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    env = os.environ | {"LATENTZIP_NO_SKIPS": strict, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("test_left_out: Skipped: " + reason in done.stdout) == bool(status)
