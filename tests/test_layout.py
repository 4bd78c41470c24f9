"""The house stands as docs/architecture.md says: packages declared, links right, imports only downwards and cheap."""

import ast
import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from latentzip.codecs.registry import FAMILIES, load_codec, options_of_family

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
ROOMS = ["codecs", "entropy", "kernels", "pretrained"]


def package_folders():
    found = {}
    for top, name in [(ROOT / room, f"latentzip.{room}") for room in ROOMS] + [(ROOT / "src/latentzip", "latentzip")]:
        for init in top.rglob("__init__.py"):
            parts = init.parent.relative_to(top).parts
            if top.name == "latentzip" and parts and parts[0] in ROOMS:
                continue  # the links for type checkers
            found[".".join([name, *parts])] = init.parent
    return found


def test_every_package_is_declared():
    """A forgotten one works in an editable install and is silently missing from the wheel."""
    assert sorted(CONFIG["packages"]) == sorted(package_folders())


def test_package_dir_maps_each_room():
    for room in ROOMS:
        assert CONFIG["package-dir"][f"latentzip.{room}"] == room


@pytest.mark.parametrize("room", ROOMS)
def test_links_show_the_same_tree(room):
    link = ROOT / "src" / "latentzip" / room
    if not link.is_symlink():
        pytest.skip("checkout without symlinks")
    assert link.resolve() == ROOT / room


RANK = {"kernels": 0, "entropy": 1, "pretrained": 2, "codecs": 3, "latentzip": 4}


@pytest.mark.parametrize("name", sorted(package_folders()))
def test_imports_go_down_only(name):
    folder = package_folders()[name]
    room = name.split(".")[1] if name.count(".") and name.split(".")[1] in ROOMS else "latentzip"
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            targets = []
            if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                # works by accident from the root of the checkout, and loads a second copy
                assert not {n.split(".")[0] for n in names} & {"entropy", "kernels", "pretrained"}, path
            if isinstance(node, ast.ImportFrom) and node.level > name.count(".") and room != "latentzip":
                targets = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("latentzip."):
                targets = [(node.module or "").split(".")[1]]
            for target in targets:
                assert RANK.get(target, 4) <= RANK[room], f"{path.name} ({room}) imports {target}"


def test_import_is_light():
    code = (
        "import sys, latentzip\n"
        "latentzip.list_codecs()\n"
        "heavy = {'torch', 'compressai', 'pandas', 'matplotlib', 'scipy', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_codecs_load_without_a_compiler():
    """torch imports its compiler, seconds of work, for operations that look harmless (such as on meta tensors)."""
    code = (
        "import sys, numpy as np, latentzip as lz\n"
        "for name in ('walloc-rgb-16x', 'hyperprior-fast'):\n"
        "    lz.decode(lz.encode(np.zeros((16, 16, 3), np.uint8), name))\n"
        "lz.decode(lz.encode((np.zeros(2000, np.float32), 16000)))\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_public_names_are_those_of_the_list():
    """A name that goes, or a new one, is a decision: edit tests/public_names.json with it."""
    names = json.loads((ROOT / "tests/public_names.json").read_text())
    assert {module: sorted(import_module(module).__all__) for module in names} == names
    for module, exported in names.items():
        assert not [name for name in exported if not hasattr(import_module(module), name)]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_is_a_room_and_a_line(name):
    """Its options are read without torch, and its module has what the registry promises."""
    family = FAMILIES[name]
    code = f"from latentzip.codecs import registry as r; r.options_of_family(r.FAMILIES[{name!r}]); import sys; "
    code += "assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")
    if family.make:
        codec = load_codec(name)
        assert codec.name == name
        assert tuple(codec.options) == options_of_family(family)


def test_repository_root_on_the_path_is_explained():
    code = (
        f"import importlib.util as u; s = u.spec_from_file_location('codecs', {str(ROOT / 'codecs/__init__.py')!r})\n"
    )
    code += "s.loader.exec_module(u.module_from_spec(s))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PYTHONPATH" in result.stderr
