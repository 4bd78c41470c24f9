"""Bundled weights: safetensors, an index with checksums, a model card each.

`index.json` lists every release, the current one of a codec first; an older release stays as long as streams made
with it may exist. Streams name their weights by fingerprint, so old streams find old weights.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from ..entropy.errors import CodecError, InputError, UnsupportedError


@dataclass(frozen=True)
class Entry:
    """One released set of weights.

    Attributes:
        name, version: codec and release, "1", "2", ...
        file, sha256: weights in this folder.
        fingerprint: hex of the 8 bytes that streams carry.
        loader: ``"package.module:function"`` that turns this entry into a codec.
        current: whether encoding uses it; exactly one release a codec.
    """

    name: str
    version: str
    file: str
    sha256: str
    fingerprint: str
    loader: str
    modality: str
    summary: str
    fixed_rate: bool
    current: bool
    results: dict[str, Any] = field(default_factory=dict)

    def read(self) -> bytes:
        """The weights file, checked against its SHA-256."""
        data = (files(__name__) / self.file).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise CodecError(f"weights {self.file} are damaged (checksum differs); reinstall latentzip")
        return data


@lru_cache(maxsize=1)
def index() -> tuple[Entry, ...]:
    """All bundled releases."""
    path = files(__name__) / "index.json"
    if not path.is_file():
        return ()
    return tuple(Entry(**item) for item in json.loads(path.read_text())["codecs"])


def find(name: str, fingerprint: bytes | None = None) -> Entry:
    """The current release of a codec, or the one with this fingerprint.

    Raises:
        InputError: no such codec.
        UnsupportedError: no release with this fingerprint is installed.
    """
    entries = [e for e in index() if e.name == name]
    if not entries:
        raise InputError(f"no bundled weights for codec {name!r}")
    for entry in entries:
        if entry.current if fingerprint is None else entry.fingerprint == fingerprint.hex():
            return entry
    raise UnsupportedError(
        f"the stream needs weights {(fingerprint or b'').hex()} of {name}, which this version of latentzip does not "
        "bring; install the version that wrote it or a newer one"
    )
