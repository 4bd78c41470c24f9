"""How files may lean on each other: no two of them in a circle, and each room's underscores are its own."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("codecs", "entropy", "kernels", "pretrained")
FOREIGN = {"_Tile", "_offset"}  # underscores of other packages, under names that are ours too


@cache
def modules() -> dict[str, Path]:
    """Every file by the name it is imported under."""
    found = {}
    for top, name in [*((ROOT / room, f"latentzip.{room}") for room in ROOMS), (ROOT / "src/latentzip", "latentzip")]:
        for path in top.rglob("*.py"):
            parts = path.relative_to(top).with_suffix("").parts
            if name != "latentzip" or parts[0] not in ROOMS:  # the links for type checkers
                found[".".join([name, *parts]).removesuffix(".__init__")] = path
    for path in (ROOT / "scripts/bench").glob("*.py"):
        found[f"bench.{path.stem}".removesuffix(".__init__")] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


def room_of(name: str) -> str:
    return name if modules()[name].name == "__init__.py" else name.rpartition(".")[0]


def imported(name: str) -> list[tuple[str, str]]:
    """(module, name) of everything that a file imports of ours, wherever in it: at the top, late, for types only."""
    found = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names if alias.name in modules()]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = room_of(name).split(".")
                base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in modules():
                    found.append((inner, ""))
                elif base in modules():
                    found.append((base, alias.name))
    return found


@cache
def private_names(name: str) -> frozenset[str]:
    """The underscores that a file defines: of functions, classes, variables, attributes."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
            found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return frozenset(filter(private, found))


@cache
def leans_on() -> dict[str, list[str]]:
    return {name: sorted({module for module, _ in imported(name)} - {name}) for name in modules()}


def circles() -> list[list[str]]:
    """Groups of files that reach each other, by Tarjan's algorithm."""
    graph, order, low, stack, found = leans_on(), {}, {}, [], []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in order:
            visit(name)
    return found


def test_no_files_import_each_other_in_a_circle():
    assert circles() == []


@pytest.mark.parametrize("room", sorted({room_of(name) for name in modules()}))
def test_rooms_leave_the_underscores_of_others_alone(room):
    """Neither imported nor reached through an object: what two rooms share has a name without one."""
    ours = set().union(*map(private_names, modules()))
    own = set().union(*(private_names(name) for name in modules() if room_of(name) == room))
    for name in (n for n in modules() if room_of(n) == room):
        for module, what in imported(name):
            assert not private(what) or room_of(module) == room, f"{name} imports {what} of {module}"
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute) and node.attr in ours - own - FOREIGN:
                assert ast.unparse(node.value) in ("self", "cls"), f"{name}:{node.lineno} reaches for {node.attr}"


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("name", ["latentzip.api", "latentzip.entropy.coder"])
def test_the_graph_sees_imports(name):
    """The tests above have something to look at."""
    assert len(leans_on()[name]) > 3
    assert len(modules()) > 200
