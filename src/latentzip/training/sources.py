"""Where training signals lie: folders, or one zip file of them; and of what kind each is.

A folder with a `manifest.csv` that has the columns `file` and `kind` says so itself; elsewhere the kind is the name of
the folder that a file lies in. A zip file holds the same tree, stored, and serves where only one file can travel.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

Folders = str | Path | Sequence[str | Path]
MANIFEST = "manifest.csv"


class Source(NamedTuple):
    """A file: its name below its root, what kind it is of, and how to open it."""

    name: str
    kind: str
    root: Path

    def read(self) -> bytes:
        """The file's bytes."""
        if self.root.is_file():
            with zipfile.ZipFile(self.root) as archive:
                return archive.read(self.name)
        return (self.root / self.name).read_bytes()


def folders(data: Folders) -> list[Path]:
    """The roots that were named, one or several."""
    return [Path(data)] if isinstance(data, str | Path) else [Path(d) for d in data]


def list_sources(data: Folders, extensions: set[str]) -> list[Source]:
    """All files of some extensions, sorted below each root, so that a seed means the same everywhere.

    Raises:
        FileNotFoundError: a root does not exist.
    """
    found = []
    for root in folders(data):
        if not root.exists():
            raise FileNotFoundError(f"no folder or zip file {root}")
        names = sorted(_names(root))
        kinds = _manifests(root, names)
        for name in names:
            path = PurePosixPath(name)
            if path.suffix.lower() in extensions:
                found.append(Source(name, kinds.get(name) or path.parent.name or root.stem, root))
    return found


def by_kind(kinds: Sequence[str]) -> list[list[int]]:
    """Numbers of the items of each kind, kinds sorted by name."""
    return [[i for i, k in enumerate(kinds) if k == kind] for kind in sorted(set(kinds))]


def _names(root: Path) -> Iterator[str]:
    if root.is_file():
        with zipfile.ZipFile(root) as archive:
            yield from (n for n in archive.namelist() if not n.endswith("/"))
    else:
        yield from (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def _manifests(root: Path, names: list[str]) -> dict[str, str]:
    """Kind of each file that a manifest names, by its name below the root."""
    kinds = {}
    for name in names:
        if PurePosixPath(name).name != MANIFEST:
            continue
        text = Source(name, "", root).read().decode("utf-8-sig", "replace")
        for row in csv.DictReader(io.StringIO(text)):
            if row.get("file") and row.get("kind"):
                kinds[(PurePosixPath(name).parent / row["file"]).as_posix()] = row["kind"]
    return kinds
