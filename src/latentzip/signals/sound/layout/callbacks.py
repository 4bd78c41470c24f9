"""An open file for a library of C, which calls it and has no place for its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Callbacks:
    """An open file that libsndfile reads or writes; an error or an interrupt in it ends what is under way.

    Left to itself the library takes a failed read for the end of the file, and goes on.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise what was kept."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Raise what was kept when the block ends, in place of what the library made of it."""
        try:
            yield
        finally:
            self.check()

    def _call(self, method: Callable[..., int], *arguments: Any) -> int:
        if self._error is None:
            try:
                return method(*arguments)
            except BaseException as error:
                self._error = error
        return 0

    def readinto(self, buffer: Any) -> int:
        return self._call(self._file.readinto, buffer)

    def write(self, data: bytes) -> int:
        return self._call(self._file.write, data)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._call(self._file.seek, place, whence)

    def tell(self) -> int:
        return self._call(self._file.tell)
