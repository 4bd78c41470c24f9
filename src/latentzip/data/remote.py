"""Remote packs through fsspec: small files are fetched once into a cache folder, records by ranged reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..entropy.errors import CodecError, FormatError, InputError, UnsupportedError


def is_remote(path: str) -> bool:
    """Whether a path is a URL that only fsspec can read."""
    return "://" in path and not path.startswith("file://")


def local_path(path: str) -> str:
    """A local path from itself or from a ``file://`` URL."""
    return unquote(urlsplit(path).path) if path.startswith("file://") else path


def cache_folder() -> Path:
    """The user's cache folder for packs."""
    base = os.environ.get("LATENTZIP_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentzip" / "packs"


def here(path: str, what: str) -> str:
    """A path of this machine; raises InputError: a URL, which would make a folder called ``s3:``."""
    if is_remote(path):
        raise InputError(f"{path} is a URL, and {what} on this machine alone; name a folder, and copy what is in it")
    return local_path(path)


class Remote:
    """One folder on a remote file system."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._pid, self._fs, self._root = -1, None, ""

    def _system(self) -> Any:
        """The file system, made anew after a fork: its event loop does not survive one."""
        if self._pid != os.getpid():
            try:
                from fsspec.core import url_to_fs

                self._fs, self._root = url_to_fs(self.url)
            except ImportError as error:
                what = "" if getattr(error, "name", None) == "fsspec" else f" ({error})"
                raise UnsupportedError(
                    f"{self.url}: remote packs need fsspec: pip install latentzip[remote]{what}"
                ) from error
            except ValueError as error:
                raise UnsupportedError(f"{self.url}: fsspec cannot open this URL: {error}") from error
            self._pid = os.getpid()
        return self._fs

    def _path(self, name: str) -> str:
        self._system()  # knows the root
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")

    @property
    def one_process(self) -> bool:
        """Whether other processes do not see what is written here."""
        return self.url.startswith("memory:")

    @contextmanager
    def _said(self, name: str) -> Iterator[None]:
        """What a file system raises beside OSErrors, such as for want of credentials, as an error that names the file.

        Raises:
            UnsupportedError: it cannot do what is asked, such as write.
            CodecError: anything else.
        """
        try:
            yield
        except (OSError, CodecError):
            raise
        except NotImplementedError as error:
            raise UnsupportedError(
                f"{self.url}/{name}: this kind of URL cannot be written, or read in parts"
            ) from error
        except Exception as error:
            text = " ".join(str(error).split()) or "no reason given"
            raise CodecError(f"{self.url}/{name}: {type(error).__name__}: {text}") from error

    def do(self, verb: str, name: str, *more: Any, **options: Any) -> Any:
        """A method of the file system on a file or folder; errors as `_said`, and OSError."""
        with self._said(name):
            return getattr(self._system(), verb)(self._path(name), *more, **options)

    def put(self, source: Path, name: str) -> None:
        """Copy a file of this machine there, with the folders above it where the file system has folders."""
        fs = self._system()
        with self._said(name):
            fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            fs.put_file(os.fspath(source), self._path(name))

    def fetch(self, name: str, limit: int) -> bytes:
        """All bytes of a file.

        Raises:
            FormatError: it is not there, or longer than ``limit`` bytes.
        """
        fs = self._system()
        try:
            with self._said(name):
                if (fs.size(self._path(name)) or 0) > limit:  # servers need not know
                    raise FormatError(f"{self.url}/{name}: longer than {limit} bytes")
                return fs.cat_file(self._path(name))
        except FileNotFoundError:
            raise FormatError(f"{self.url} is no packed data set: it has no {name}") from None

    def fetched(self, name: str, version: str, cache_dir: str | None, most: int) -> Path:
        """A local copy of a file of at most so many bytes.

        ``version`` names the state of the pack, so that no stale copy is ever met.
        """
        key = hashlib.sha256(f"{self.url}\n{version}".encode()).hexdigest()[:32]
        target = (Path(cache_dir) if cache_dir else cache_folder()) / key / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            data = self.fetch(name, most)
            part = target.with_name(f".{name}.{os.getpid()}.part")
            part.write_bytes(data)
            os.replace(part, target)
        return target

    def ranges(self, names: list[str], begins: list[int], sizes: list[int]) -> list[bytes]:
        """Parts of files, fetched at the same time where the file system can."""
        fs = self._system()
        ends = [b + s for b, s in zip(begins, sizes)]
        with self._said(names[0] if names else ""):
            return fs.cat_ranges([self._path(n) for n in names], begins, ends, on_error="raise")
