"""Bundled weights: safetensors, an index with checksums, a model card each.

`index.json` lists every release; an older one stays as long as streams made with it may exist, packed by gzip. Streams
name their weights by fingerprint, so old streams find old weights.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from ..entropy import schema
from ..entropy.errors import CodecError, FormatError, InputError, UnsupportedError

_WORD = schema.text(schema.PLAIN_NAME, 100)
PACKED = ".gz"
_MOST = 1 << 20  # bytes of the index
_ENTRY = schema.record(
    {
        "name": _WORD, "version": schema.text(r"[0-9]{1,6}"), "file": _WORD, "sha256": schema.text(r"[0-9a-f]{64}"),
        "fingerprint": schema.text(r"[0-9a-f]{16}"), "loader": schema.text(r"latentzip(\.\w+)+:\w+", 200),
        "modality": schema.one_of("image", "audio", "tensor"), "summary": schema.text(most=500),
        "fixed_rate": schema.boolean, "current": schema.boolean,
    },
    {"results": schema.record({})}, closed=True,
)  # fmt: skip
_INDEX = schema.record({"codecs": schema.array(_ENTRY, 1000)}, closed=True)


@dataclass(frozen=True)
class Entry:
    """One released set of weights.

    Attributes:
        name, version: codec and release, "1", "2", ...
        file: weights in this folder, plain or packed (``.gz``).
        sha256: of the weights, unpacked.
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
        if self.file.endswith(PACKED):
            try:
                data = gzip.decompress(data)
            except (OSError, EOFError, zlib.error):
                data = b""  # has another checksum
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise CodecError(f"weights {self.file} are damaged (checksum differs); reinstall latentzip")
        return data


@lru_cache(maxsize=1)
def index() -> tuple[Entry, ...]:
    """All bundled releases."""
    path = files(__name__) / "index.json"
    return read_index(path.read_bytes()) if path.is_file() else ()


def read_index(data: bytes) -> tuple[Entry, ...]:
    """The releases that an index names.

    Raises:
        FormatError: not such an index, two releases of one version or fingerprint, or a codec without a current one.
    """
    entries = tuple(Entry(**item) for item in schema.parse(data, "index.json", _INDEX, _MOST)["codecs"])
    for entry in entries:
        own = [e for e in entries if e.name == entry.name]
        if len({e.version for e in own}) < len(own) or len({e.fingerprint for e in own}) < len(own):
            raise FormatError(f"index.json: two releases of {entry.name} have one version or fingerprint")
        if sum(e.current for e in own) != 1:
            raise FormatError(f"index.json: exactly one release of {entry.name} has to be current")
    return entries


def release(name: str, version: str) -> Entry:
    """The release of a codec that has this version; UnsupportedError where none has."""
    for entry in index():
        if (entry.name, entry.version) == (name, version):
            return entry
    raise UnsupportedError(f"no release {version} of {name} is bundled with this version of latentzip")


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
