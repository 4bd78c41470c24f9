"""Where a pack is written: a folder of this machine, or one that fsspec knows. Files appear whole or not at all.

Object stores have neither renaming nor locks: a file is put there when it is finished, and runs that overlap make the
same bytes twice.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..codecs.outputs import naming
from ..entropy.errors import FormatError
from ..entropy.opening import open_regular, read_file
from .locks import locked
from .remote import Remote, is_remote, local_path


class Place:
    """A folder of this machine; names are relative, with ``/`` between their parts.

    Attributes:
        path: as users know it.
        scratch: where files are made before they are put in place.
    """

    one_process = False  # whether other processes do not see what is written there

    def __init__(self, path: str) -> None:
        self.path = path
        self.scratch = Path(path)

    def __str__(self) -> str:
        return self.path

    def where(self, name: str) -> str:
        """A file's path, for messages."""
        return os.path.join(self.path, name)

    def exists(self) -> bool:
        """Whether there is such a folder."""
        return self.scratch.is_dir()

    def make(self, name: str = "") -> None:
        """Make a folder in it, and itself."""
        (self.scratch / name).mkdir(parents=True, exist_ok=True)

    def names(self, folder: str = "") -> list[str]:
        """Names of files and folders in a folder of it; none where that is missing."""
        try:
            return os.listdir(self.scratch / folder)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        path = self.scratch / name
        return path.stat().st_size if path.is_file() else None

    def open(self, name: str) -> BinaryIO:
        """A file for reading.

        Raises:
            FormatError: not a regular file.
            OSError: it cannot be read.
        """
        return os.fdopen(open_regular(self.scratch / name), "rb")

    def read(self, name: str, most: int) -> bytes:
        """All of a file of at most so many bytes; errors as `open`."""
        return read_file(self.scratch / name, most)

    def write(self, name: str, data: bytes) -> None:
        """Replace a file in one step."""
        write_bytes(self.scratch / name, data)

    def adopt(self, part: Path, name: str) -> None:
        """Move a finished file of `scratch` to its place."""
        os.replace(part, self.scratch / name)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        (self.scratch / name).unlink(missing_ok=True)

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it."""
        shutil.rmtree(self.scratch / name, ignore_errors=True)

    def sha256(self, name: str) -> str:
        """Of a file, in hex; errors as `open`."""
        digest = hashlib.sha256()
        with self.open(name) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @contextmanager
    def claimed(self, name: str, shared: bool) -> Iterator[None]:
        """Hold a lock of this name; raises BlockingIOError where another process holds it."""
        with locked(self.scratch / name, shared=shared, wait=False):
            yield


class RemotePlace(Place):
    """A folder that fsspec knows."""

    def __init__(self, url: str) -> None:
        self.path, self._remote = url.rstrip("/"), Remote(url)
        self.one_process = self._remote.one_process
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    @property
    def scratch(self) -> Path:  # type: ignore[override]
        """A folder of this machine, removed with this object."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="latentzip-")
        return Path(self._scratch.name)

    def __getstate__(self) -> str:
        return self.path

    def __setstate__(self, url: str) -> None:
        RemotePlace.__init__(self, url)

    def _do(self, verb: str, name: str, *more: Any, **options: Any) -> Any:
        return self._remote.do(verb, name, *more, **options)

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def exists(self) -> bool:
        return bool(self.names())

    def make(self, name: str = "") -> None:
        """Nothing: folders are where files are."""

    def names(self, folder: str = "") -> list[str]:
        self._do("invalidate_cache", folder)
        try:
            found = self._do("ls", folder, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [str(path).rstrip("/").rpartition("/")[2] for path in found]

    def size(self, name: str) -> int | None:
        try:
            return int(self._do("size", name) or 0)
        except FileNotFoundError:
            return None

    def open(self, name: str) -> BinaryIO:
        return self._do("open", name, "rb")

    def read(self, name: str, most: int) -> bytes:
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(2, "No such file", self.where(name))
        if size > most:
            raise FormatError(f"{self.where(name)}: longer than {most} bytes")
        return self._do("cat_file", name)

    def write(self, name: str, data: bytes) -> None:
        self._do("pipe_file", name, data)

    def adopt(self, part: Path, name: str) -> None:
        self._remote.put(part, name)
        part.unlink()

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._do("rm_file", name)

    def remove_folder(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._do("rm", name, recursive=True)

    @contextmanager
    def claimed(self, name: str, shared: bool) -> Iterator[None]:
        yield


def place_of(path: str | os.PathLike[str]) -> Place:
    """The place of a path or URL.

    Raises:
        UnsupportedError: a URL that fsspec does not know, or fsspec is missing.
    """
    text = os.fspath(path)
    return RemotePlace(text) if is_remote(text) else Place(local_path(text))


# --- files of this machine ---------------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file by these bytes in one step."""
    write_file(path, lambda file: file.write(data))


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace a file by what ``write`` puts into an open one, in one step."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming(path), open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
