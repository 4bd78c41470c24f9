"""The errors users see: each text says what was wrong, where, and what to do about it."""

from __future__ import annotations


class CodecError(Exception):
    """Base of every error that latentzip raises on purpose."""


class InputError(CodecError, ValueError):
    """The signal or an argument handed in cannot be coded as asked."""


class FormatError(CodecError):
    """The bytes are no valid `.ltz` stream: foreign, truncated, corrupted or hostile."""


class MoreDataNeeded(FormatError):
    """A live stream has not come far enough: feed more and ask again; if no more comes, it is truncated."""


class LimitError(FormatError):
    """A declared size exceeds the limits that protect memory and time."""


class UnsupportedError(CodecError):
    """The stream or request is valid, but this installation cannot serve it."""
