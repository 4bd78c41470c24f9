"""The pages of the documentation: examples run as they are printed, links lead somewhere, the menu names every page."""

from __future__ import annotations

import re
import shlex
import wave as wavelib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentzip import cli
from latentzip.evaluation.metrics import registry

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
QUICK = [p.name for p in PAGES if p.name.startswith("quickstart-") or p.name == "effort.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the examples find where they run."""
    y, x = np.mgrid[:72, :96]
    pixels = np.stack([90 + 80 * np.sin(x / 9), 90 + 80 * np.cos(y / 7), x + y], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.roll(pixels, 9 * i, 0)).save(tmp_path / "pictures" / name / f"{i}.png")
    wave = np.sin(np.arange(8000) * 0.1) * 12000
    with wavelib.open(str(tmp_path / "song.wav"), "wb") as song:
        song.setparams((1, 2, 16000, len(wave), "NONE", ""))
        song.writeframes(wave.astype("<i2").tobytes())
    np.save(tmp_path / "activations.npy", np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_METRICS", dict(registry._METRICS))  # a page adds one


@pytest.mark.parametrize("page", QUICK)
def test_examples(page, folder):
    """Python and commands, in the order of the page, in one folder and one namespace."""
    scope: dict[str, object] = {}
    blocks = BLOCK.findall((DOCS / page).read_text())
    assert any(language == "python" for language, _ in blocks)
    for extra in ("zarr", "timm"):
        if f"import {extra}" in (DOCS / page).read_text():
            pytest.importorskip(extra)
    for language, text in blocks:
        if language == "python":
            exec(compile(text, page, "exec"), scope)
        elif not language:
            for line in text.splitlines():
                command, *arguments = shlex.split(line, comments=True)
                assert command == "codec-cli", line
                assert cli.main(arguments) == 0, line


def anchors(path: Path) -> set[str]:
    """Fragments that the headings of a page make, as Markdown does."""
    found = re.findall(r"^#+ (.*)$", BLOCK.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", h.lower()).strip()) for h in found}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links(path):
    """Relative links lead to files of docs/ and to headings in them; absolute ones are https."""
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", path.read_text())):
        if "://" in target:
            assert target.startswith("https://"), target
            continue
        name, _, fragment = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.is_file(), target
        assert linked.is_relative_to(DOCS), f"{target}: the site holds docs/ only"
        if fragment:
            assert fragment in anchors(linked), target


def test_the_menu_names_every_page():
    """mkdocs.yml, read without a YAML library: entries are `Title: page.md`."""
    named = re.findall(r"^\s+- (?:.*: )?([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(named) == len(set(named))
    assert sorted(named) == [p.name for p in PAGES]


def test_guarantees_name_tests_that_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "guarantees.md").read_text())
    assert len(named) > 20
    for file, name in named:
        assert f"\ndef {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
