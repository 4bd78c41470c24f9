"""Output files: whole or not at all, and nothing outside of them is harmed.

A regular file is written beside its place and moved there. Links are followed, and what is replaced keeps its mode and
its owner. Pipes and devices are written into, once all of the output is there.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from ..entropy.errors import InputError

_SPOOL = 1 << 26  # bytes that wait in memory for a pipe or a device; more of them wait on disk
_HANDLES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")  # names of what is open already: never replaced
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """A full disk is said with the file that it had no room for: writing alone does not know."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def atomic_writer(path: str | os.PathLike[str], force: bool = False) -> Iterator[BinaryIO]:
    """An open binary file that becomes ``path`` when the block ends, and vanishes when it raises.

    Raises:
        InputError: ``path`` exists and ``force`` is False, or is a folder.
        OSError: it cannot be written.
    """
    with naming(path), _writer(Path(path), force) as file:
        yield file


@contextmanager
def _writer(given: Path, force: bool) -> Iterator[BinaryIO]:
    check_writable(given, force)
    if is_special(given):
        with _spooled(given, "wb") as file:
            yield file
        return
    target = Path(os.path.realpath(given))  # a link stays, what it names is written
    old = _state(target)
    part = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666 if old is None else 0o600)
    except OSError as error:
        if not isinstance(error, PermissionError) or old is None or not os.access(target, os.W_OK):
            error.filename = os.fspath(given)  # not the hidden one beside it
            raise
        with _spooled(target, "r+b") as file:  # the file may be written, its folder may not
            yield file
        return
    try:
        with open(descriptor, "w+b") as file:  # libsndfile reads what it has written
            yield cast(BinaryIO, file)
            file.flush()
            if old is not None:
                _like(descriptor, old)
        check_writable(given, force)  # someone else may have written it meanwhile
        try:
            os.replace(part, target)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EXDEV):  # the target is a mount of its own, as containers have
                raise
            shutil.copyfile(part, target)
            part.unlink()
    except BaseException:  # interrupts included: nothing half-written stays
        with suppress(OSError):
            part.unlink()
        raise


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, replacing one that exists; as `atomic_writer`."""
    with atomic_writer(path, force=True) as file:
        file.write(data)


def check_writable(path: Path, force: bool) -> None:
    """Raises InputError when ``path`` is a folder or a socket, or exists and is not to be replaced.

    Pipes and character devices (/dev/null) hold nothing that could be replaced.
    """
    found = _state(path)
    if found is None:
        parent = Path(os.path.realpath(path)).parent
        if not parent.is_dir():
            raise InputError(
                f"the folder {parent if path.is_symlink() else path.parent} does not exist; create it first"
            )
        return
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path} is a folder; name a file")
    if stat.S_ISSOCK(found.st_mode):
        raise InputError(f"{path} is a socket; name a file, a pipe or a device")
    if not (force or stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode) or _is_handle(path)):
        raise InputError(f"{path} exists already; choose another name, or replace it with force (--force)")


def is_special(path: Path) -> bool:
    """Whether a path is written into rather than replaced: a pipe, a device, or the name of an open file."""
    found = _state(path)
    return (
        found is not None and (not stat.S_ISREG(found.st_mode) or _is_handle(path)) and not stat.S_ISDIR(found.st_mode)
    )


def _is_handle(path: Path) -> bool:
    return os.path.abspath(path).startswith(_HANDLES)


def _state(path: Path) -> os.stat_result | None:
    """What is there, links followed; None where nothing is."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _spooled(target: Path, mode: str) -> Iterator[BinaryIO]:
    """A file that can be sought, copied into ``target`` when the block ends."""
    with tempfile.SpooledTemporaryFile(_SPOOL) as file:
        yield cast(BinaryIO, file)
        file.seek(0)
        with open(target, mode) as out:
            shutil.copyfileobj(file, out, 1 << 20)
            if mode == "r+b":
                out.truncate()


def _like(descriptor: int, old: os.stat_result) -> None:
    """Give a new file the owner and the mode of the one that it replaces, as far as the system lets us."""
    if not hasattr(os, "fchown"):
        return
    with suppress(OSError):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    with suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
