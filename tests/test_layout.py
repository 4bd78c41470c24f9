"""The house stands as docs/architecture.md says: packages declared, links right, imports only downwards and cheap."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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


def test_repository_root_on_the_path_is_explained():
    code = (
        f"import importlib.util as u; s = u.spec_from_file_location('codecs', {str(ROOT / 'codecs/__init__.py')!r})\n"
    )
    code += "s.loader.exec_module(u.module_from_spec(s))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PYTHONPATH" in result.stderr
