"""Files of several tensors, `.safetensors` and `.npz`: to an archive of streams and back.

The archive is a plain tar: `NAME.ltz` for each float tensor, a stream that decodes alone, after `rest.safetensors`,
which holds what is not coded (integers, float64) as it is and, as its metadata, what the file said about itself.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...codecs.features.codec import FeatureCodec
from ...codecs.features.layout import DTYPES
from ...entropy.errors import CodecError, FormatError, InputError
from ...warn import converted
from .objects import to_numpy

_REST, _STREAM, _FORMAT = "rest.safetensors", ".ltz", "latentzip.tensors"
_VERSION = "1"


class Coded(NamedTuple):
    """How many tensors and values were coded, and the bytes of their streams."""

    tensors: int
    values: int
    num_bytes: int


class Origin(NamedTuple):
    """What the file that an archive was made from was: its extension, its metadata, the order of its tensors."""

    suffix: str
    metadata: dict[str, str]
    order: list[str]


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata, of a ``.safetensors`` or ``.npz`` file.

    Raises:
        InputError: not such a file, or one that holds Python objects.
        OSError: the file cannot be read.
    """
    if Path(path).suffix.lower() == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}, {}
        except (ValueError, EOFError, TypeError, KeyError) as error:
            raise InputError(f"{path} is no .npz file of numbers ({error})") from error
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is no .safetensors file ({error})") from error


def encode_tensors(
    source: str | os.PathLike[str], out: BinaryIO, codec: FeatureCodec, options: dict[str, Any]
) -> Coded:
    """Code every float tensor of a file on its own, into an open archive.

    Args:
        source: a ``.safetensors`` or ``.npz`` file.
        options: a goal, as `FeatureCodec.compress`; each tensor keeps to it.

    Raises:
        InputError: as `read_tensors`, or a tensor that cannot be coded so; the text names it.
    """
    from safetensors.torch import save

    tensors, metadata = read_tensors(source)
    coded = {name: x for name, x in tensors.items() if x.dtype in DTYPES}
    rest = {name: x.contiguous() for name, x in tensors.items() if name not in coded}
    about = Origin(Path(source).suffix.lower(), metadata, [*tensors])
    size = 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, _REST, save(rest, {_FORMAT: json.dumps({"format": _VERSION, **about._asdict()})}))
        for name, x in coded.items():
            try:
                stream = codec.encode(x, **options)
            except CodecError as error:
                raise type(error)(f"tensor {name!r}: {error}") from error
            _add(archive, name + _STREAM, stream)
            size += len(stream)
    return Coded(len(coded), sum(x.numel() for x in coded.values()), size)


def decode_tensors(
    source: str | os.PathLike[str], codec: FeatureCodec | None = None
) -> tuple[dict[str, Tensor], Origin]:
    """Tensors of an archive in the order of the file that it was made from, and what that was.

    Raises:
        FormatError: not such an archive, or damaged.
        UnsupportedError: the tensors were coded with another profile.
        OSError: the file cannot be read.
    """
    codec = codec or FeatureCodec()
    with _members(source) as (origin, found, members):
        for name, stream in members:
            found[name.removesuffix(_STREAM)] = _one(name, stream, codec)
        return {name: found[name] for name in origin.order}, origin


def origin_of(source: str | os.PathLike[str]) -> Origin:
    """What an archive says about the file that it was made from; errors as `decode_tensors`."""
    with _members(source) as (origin, _, _):
        return origin


@contextmanager
def _members(
    source: str | os.PathLike[str],
) -> Iterator[tuple[Origin, dict[str, Tensor], Iterator[tuple[str, bytes]]]]:
    """An archive's origin, the tensors that are kept as they are, and the streams, by name."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        with tarfile.open(source) as archive:
            members = iter(archive)
            first = next(members, None)
            if first is None or first.name != _REST:
                raise FormatError(
                    f"{source} is a tar file, but none of tensors; data sets are opened with latentzip.data"
                )
            raw = _content(archive, first)
            about = json.loads(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"][_FORMAT])
            if about.pop("format") != _VERSION:
                raise FormatError(f"{source} needs a newer latentzip: it is an archive of another format")
            yield Origin(**about), load(raw), ((m.name, _content(archive, m)) for m in members)
    except (tarfile.TarError, KeyError, TypeError, ValueError, EOFError, SafetensorError) as error:
        raise FormatError(f"{source} is no archive of tensors, or it is damaged ({error})") from error


def write_tensors(tensors: dict[str, Tensor], metadata: dict[str, str], out: BinaryIO, suffix: str) -> None:
    """Write tensors into an open file in the format of ``suffix``, ``.safetensors`` or ``.npz``.

    Raises:
        InputError: another suffix.
    """
    if suffix.lower() == ".safetensors":
        from safetensors.torch import save

        out.write(save({name: x.contiguous() for name, x in tensors.items()}, metadata))
    elif suffix.lower() == ".npz":
        if any(x.dtype == torch.bfloat16 for x in tensors.values()):
            converted("bfloat16 values are written as float32: .npz has no bfloat16")
        buffer = io.BytesIO()
        np.savez(buffer, **{name: to_numpy(x) for name, x in tensors.items()})  # type: ignore[arg-type]
        out.write(buffer.getvalue())
    else:
        raise InputError(f"tensors are written as .safetensors or .npz, not {suffix or 'without extension'}")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # time and owner stay zero: the same tensors give the same bytes
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise FormatError(f"{member.name} is no plain file: the archive is damaged")
    data = file.read()
    if len(data) != member.size:
        raise FormatError(f"{member.name} is cut short: the archive is damaged")
    return data


def _one(name: str, stream: bytes, codec: FeatureCodec) -> Tensor:
    try:
        return codec.decode(stream)
    except CodecError as error:
        raise type(error)(f"{name}: {error}") from error
