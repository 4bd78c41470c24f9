"""The codec of a stream of a pack: one of those that are installed, or of weights that the pack brings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..codecs.registry import WEIGHTS_SUFFIX, codec_of_weights, is_weights, load_codec
from ..codecs.surroundings import plain
from ..entropy.errors import FormatError, InputError, UnsupportedError
from ..entropy.opening import MAX_WEIGHTS, read_file
from .archive import Archive
from .modality import MODALITIES
from .modality.base import keeps_signals


def weights_name(stream: str) -> str:
    """The file of a stream's weights in a pack."""
    return f"{stream}.weights{WEIGHTS_SUFFIX}" if stream else f"weights{WEIGHTS_SUFFIX}"


def named(codec: Any) -> tuple[Any, bytes | None]:
    """The codec of a name, of a path of weights or a profile, or of an object with a profile; and what a pack of it
    has to bring along.

    Raises:
        InputError: no such codec, or one that does not go into a file.
        OSError: the weights cannot be read.
    """
    if isinstance(codec, (str, os.PathLike)):
        text = os.fspath(codec)
        if not is_weights(text):
            return load_codec(text), None
        data = read_file(Path(text), MAX_WEIGHTS)
        return _of_weights(data, text, "cpu"), data
    profile = getattr(codec, "profile", None)
    if profile is not None:
        return codec, profile.to_bytes()
    name = getattr(codec, "name", None)
    if isinstance(name, str) and load_codec(name).fingerprint == codec.fingerprint:
        return load_codec(name), None
    raise InputError(
        f"{name or type(codec).__name__} has weights of its own: save them, and name the file as the codec"
    )


def loaded(name: str, fingerprint: bytes, weights: bytes | None = None) -> Any:
    """The codec that a worker codes with.

    Raises:
        UnsupportedError: what is installed has another fingerprint.
    """
    codec = load_codec(name, fingerprint=fingerprint) if weights is None else _of_weights(weights, name, "cpu")
    return _checked(codec, name, fingerprint)


def codec_of(archive: Archive, stream: str = "", device: str = "cpu") -> Any:
    """The codec with the weights that a stream of a pack was made with.

    Raises:
        FormatError: it contradicts the manifest.
        UnsupportedError: its weights are not installed.
    """
    facts = archive.facts(stream)
    fingerprint = bytes.fromhex(facts["fingerprint"])
    if "weights" in facts:
        own = facts["weights"]
        codec = _of_file(str(archive.local_file(own["file"], own["bytes"])), own["bytes"], own["sha256"], device)
        _checked(codec, facts["codec"], fingerprint)
    else:
        codec = _checked(load_codec(facts["codec"], device, fingerprint=fingerprint), facts["codec"], fingerprint)
    check(facts, codec)
    return codec


def check(facts: Mapping[str, Any], codec: Any) -> None:
    """Raises FormatError where a stream's part of a manifest contradicts its codec."""
    modality = MODALITIES[facts["modality"]]
    signals = modality.output == "signal" or keeps_signals(codec)
    if (facts["latent"] is None) != signals:
        raise FormatError(f"the manifest of a pack of {codec.name} is damaged, check it with codec-cli verify")
    modality.check_codec(facts, codec)


def _checked(codec: Any, name: str, fingerprint: bytes) -> Any:
    if codec.fingerprint != fingerprint:
        raise UnsupportedError(
            f"the pack needs {name} with fingerprint {fingerprint.hex()}; installed is {codec.fingerprint.hex()}"
        )
    return codec


@lru_cache(maxsize=4)
def _of_file(path: str, size: int, sha256: str, device: str) -> Any:
    data = read_file(Path(path), size)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise FormatError(f"{path}: its SHA-256 is not the one in the manifest")
    return _of_weights(data, path, device)


def _of_weights(data: bytes, where: str, device: str) -> Any:
    with plain():
        return codec_of_weights(data, where).to(device).eval()
