"""Weights that tests of several rooms take, and what skips are allowed.

Where LATENTZIP_NO_SKIPS is set, a test that is skipped for want of anything but a GPU fails (`make test-all`).
Its value is 1, or a pattern of further reasons that count (`.ci/run` has no Ray, say).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from _pytest.doctest import DoctestModule


@pytest.hookimpl(wrapper=True)
def pytest_collect_file():
    """Doctests are for the package: looked for in tests, they turn a test file that does not import into a skip."""
    found = yield
    return [item for item in found if not isinstance(item, DoctestModule)]


_STRICT = os.environ.get("LATENTZIP_NO_SKIPS", "0")
_ALLOWED = re.compile(
    r"GPU|CUDA|cuobjdump|sm_90|it is there|by \+SKIP option" + (f"|{_STRICT}" if len(_STRICT) > 1 else "")
)
_skipped: list[str] = []


def _note(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not _ALLOWED.search(reason) and not report.nodeid.startswith("tests/gpu"):
            _skipped.append(f"{report.nodeid}: {reason}")


def pytest_runtest_logreport(report):
    _note(report)


def pytest_collectreport(report):
    _note(report)


def pytest_sessionfinish(session, exitstatus):
    if _skipped and _STRICT not in ("", "0") and exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    if _skipped and _STRICT not in ("", "0"):
        terminalreporter.section("skipped, which is not allowed here")
        for line in _skipped:
            terminalreporter.line(line)


@pytest.fixture
def one_rate(tmp_path: Path) -> Path:
    """A file of weights whose codec, of pictures, has one fixed rate."""
    from latentzip import pretrained

    path = tmp_path / "one_rate.safetensors"
    path.write_bytes(pretrained.release("walloc-rgb-16x", "1").read())
    return path
