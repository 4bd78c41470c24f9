"""Every command with each of its options once, as a user types them; the list is taken from the parser."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip.cli import main
from latentzip.cli.app import COMMANDS, _parser

# what an option is given, and what has to stand beside it
VALUES: dict[str, list[str]] = {
    "--output": ["{out}"], "--threads": ["1"], "--device": ["cpu"], "--codec": ["walloc-rgb-16x"],
    "--metadata": ["all"],
    "--value-range": ["auto"], "--region": ["0,0,8,8"], "--span": ["0-0.1"], "--format": ["png"],
    "--precision": ["bf16"],
    "--quality": ["20", "-c", "walloc-rgb-linear"], "--coding": ["fast", "-c", "walloc-rgb-16x"],
    "--max-error": ["0.1", "-c", "features"], "--relative-error": ["0.1", "-c", "features"],
    "--nmse": ["0.1", "-c", "features"], "--bits": ["4", "-c", "features"], "--lossless": ["-c", "features"],
    "--nan": ["keep", "-c", "features"], "--transform": ["identity", "-c", "features"],
    "--axis": ["-1", "-c", "features"],
    "--effort": ["1", "-c", "walloc-rgb-16x"], "--objective": ["mse", "--effort", "1", "-c", "walloc-rgb-16x"],
    "--thrift": ["1.1", "--effort", "1", "-c", "walloc-rgb-16x"], "--levels": ["3", "-c", "vq"],
}  # fmt: skip
# those that need more than a small file of their own: tests elsewhere run them
ELSEWHERE = {"--profile", "--target", "--weight", "--tokens", "--size", "--rate", "--mono"}


def parser_of(command):
    root = _parser(command)
    groups = next(a for a in root._actions if isinstance(a, argparse._SubParsersAction))
    return groups.choices[command]


def options_of(command):
    for action in parser_of(command)._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            yield action


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(command):
    for action in parser_of(command)._actions:
        assert action.help, (command, action.option_strings or action.dest)


CASES = [(command, action.option_strings[-1]) for command in ("encode", "decode", "info", "verify", "list")
         for action in options_of(command)]  # fmt: skip


@pytest.fixture
def place(tmp_path):
    Image.fromarray(np.full((24, 32, 3), 80, np.uint8)).save(tmp_path / "p.png")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32))
    (tmp_path / "p.ltz").write_bytes(lz.encode(tmp_path / "p.png", "walloc-rgb-16x"))
    (tmp_path / "s.ltz").write_bytes(lz.encode((np.zeros(8000, np.float32), 16000)))
    return tmp_path


@pytest.mark.parametrize(("command", "option"), CASES)
def test_options_as_they_are_typed(command, option, place, capsys):
    action = next(a for a in options_of(command) if option in a.option_strings)
    if option in ELSEWHERE or (action.dest.startswith("option_") and option not in VALUES):
        pytest.xfail("a search's or another codec's: has tests of its own")
    values = [] if action.nargs == 0 and option not in VALUES else VALUES.get(option)
    if values is None:
        values = [str(next(iter(action.choices)))] if action.choices else None
    assert values is not None, f"{command} {option}: say here what it is given"
    values = [v.format(out=place / "out.ltz") for v in values]
    source = place / ("x.npy" if "features" in values else "p.png" if command == "encode" else "p.ltz")
    if option == "--span":
        source = place / "s.ltz"
    target = [] if command not in ("encode", "decode") or option in ("--output", "--format") else ["-o"]
    name = "t.ltz" if command == "encode" else "t.npy" if option in ("--latent", "--span") else "t.png"
    arguments = [command, *([str(source)] if command != "list" else []), option, *values]
    arguments += [*target, str(place / name)] if target else []
    if command == "decode" and option == "--output":
        arguments[arguments.index(str(place / "out.ltz"))] = str(place / "out.png")
    status = main(arguments)
    assert status == 0, (arguments, capsys.readouterr().err)
