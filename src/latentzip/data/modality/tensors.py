"""Packs of float tensors (`modality.base`): activations, features, embeddings; every sample is a tensor as it was."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...codecs.contract import check_options
from ...codecs.features.codec import tensor_of
from ...codecs.registry import owners
from ...entropy.batch import run_batch
from ...entropy.errors import CodecError, FormatError, InputError
from ...signals.npy import read_npy
from ...signals.tensors import TENSORS as KIND
from ...signals.tensors import objects
from .base import Modality, Options, Piece, Table, check_shape, common_shapes, opened, spread

DTYPES = ("float16", "bfloat16", "float32")
_MOST = 8  # axes


class Tensors(Modality):
    name, noun, one = "tensor", "tensors", "tensor"
    suffixes = KIND.suffixes
    columns: ClassVar[Mapping[str, str]] = {"shape": "str", "dtype": "str"}
    shape_columns = ("shape", "dtype")
    output, feature = "signal", ""
    formats = ("npy",)

    # --- writing -------------------------------------------------------------------------------------------------

    def check(self, options: Options) -> None:
        if options.size is not None or options.crop != "none":
            raise InputError("size and crop are for pictures; tensors are packed as they are")
        if options.mirror:
            raise InputError("mirror is for pictures: a tensor has no mirrored twin")
        for name, plain in (("seconds", None), ("rate", None), ("channels", "keep"), ("short", "pad")):
            if getattr(options, name) != plain:
                raise InputError(f"{name} is for sound; tensors are packed as they are")

    def specimen(self, codec: Any) -> Any:
        own = getattr(codec, "profile", None)  # its channels may lie on any axis
        return np.zeros((128, 128), np.float32) if own is None else None  # few bits are enough for these

    def load(self, data: bytes, name: str, options: Options, codec: Any) -> Any:
        objects.refuse_pickle(name)
        suffix = Path(name).suffix.lower()
        if suffix == ".safetensors":
            return _of_safetensors(data, name)
        if suffix == ".npz":
            return _of_npz(data, name)
        return {"": read_npy(io.BytesIO(data), name)}

    def accept(self, x: Any) -> Any:
        return x if isinstance(x, Mapping) else {"": x}

    def pieces(self, x: Any, options: Options, codec: Any) -> Iterator[Piece]:
        if not x:
            raise InputError("there is no tensor in it")
        for name, value in x.items():
            suffix, about = f"@{name}" if len(x) > 1 else "", f"tensor {name!r}: " if name else ""
            try:
                tensor, kind = tensor_of(value)
            except CodecError as error:
                yield Piece(suffix, value, (), f"{about}{error}")
                continue
            if tensor.ndim > _MOST:
                yield Piece(suffix, value, (), f"{about}a tensor of {tensor.ndim} axes; packs take up to {_MOST}")
                continue
            facts = "x".join(map(str, tensor.shape)), str(tensor.dtype).removeprefix("torch.")
            yield Piece(suffix, tensor if kind == "tensor" else value, facts)

    def encode(self, signal: Any, options: Options, codec: Any) -> bytes:
        return objects.encode(signal, codec, check_options(codec, options.said(), owners))

    def shape_row(self, piece: Piece, blob: bytes, codec: Any) -> tuple[Any, ...]:
        return ()  # they are facts already

    def describe(self, columns: Mapping[str, np.ndarray], options: Options, codec: Any) -> dict[str, Any]:
        shapes = common_shapes(self.shape_texts([columns[n] for n in self.shape_columns]))
        dtypes = set(columns["dtype"].tolist())
        fixed = list(_shape(next(iter(shapes)))) if len(shapes) == 1 and len(dtypes) == 1 else None
        dtype = next(iter(dtypes)) if len(dtypes) == 1 else None
        return {"latent": None, "signal": {"dtype": dtype, "fixed_shape": fixed, "shapes": shapes}}

    def bytes_of(
        self, options: Options, num_bytes: Sequence[int], names: Sequence[str], rates: Mapping[str, Any]
    ) -> float:
        return sum(num_bytes) / len(num_bytes)

    # --- reading -------------------------------------------------------------------------------------------------

    def table(self, facts: Mapping[str, Any]) -> Table | None:
        signal = facts["signal"]
        fixed = signal["fixed_shape"]
        return Table(signal["dtype"], None if fixed is None or signal["dtype"] is None else tuple(fixed))

    def shape_texts(self, columns: Sequence[np.ndarray]) -> list[str]:
        return columns[0].tolist()

    def check_codec(self, facts: Mapping[str, Any], codec: Any) -> None:
        pass

    def arrays(
        self,
        blobs: Sequence[bytes],
        codec: Any,
        threads: int,
        table: Table,
        spans: Sequence[tuple[int, int]] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """The values; those of bfloat16 as the uint16 that their bits are."""
        values = [bits_of(x) for x in self.signals(blobs, codec, threads)]
        if table.shape is None:
            return values
        dtype = array_dtype(table.dtype or "")
        for x in values:
            check_shape(x.shape, table.shape)
            if x.dtype != dtype:
                raise FormatError(f"a tensor of {x.dtype} in a data set of {table.dtype}: the manifest is wrong")
        return np.stack(values) if values else np.empty((0, *table.shape), dtype)

    def signals(
        self, blobs: Sequence[bytes], codec: Any, threads: int, spans: Sequence[tuple[int, int]] | None = None
    ) -> list[Tensor]:
        return self._restored(blobs, codec, threads, "signal")

    def tokens(self, blobs: Sequence[bytes], codec: Any, threads: int) -> list[Tensor]:
        return [x.to(torch.uint16) for x in self._restored(blobs, codec, threads, "tokens")]

    def _restored(self, blobs: Sequence[bytes], codec: Any, threads: int, to: str) -> list[Tensor]:
        fingerprint = codec.fingerprint

        def read(span: range) -> list[Tensor]:
            streams = [opened(blobs[i], codec, self.name, fingerprint) for i in span]
            return [codec.restore(s.header, s.chunks, to=to) for s in streams]

        parts = run_batch(read, spread(len(blobs), threads), threads=threads)
        return [x for part in parts for x in part]

    def check_stream(self, blob: bytes, codec: Any, row: tuple[Any, ...] | None) -> str | None:
        x = self.signals([blob], codec, 1)[0]
        found = "x".join(map(str, x.shape)), str(x.dtype).removeprefix("torch.")
        if row is None or found == row:
            return None
        return f"a tensor {found[1]} of {found[0]}, the columns say {row[1]} of {row[0]}"


def _shape(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x"))) if text else ()


def array_dtype(name: str) -> np.dtype:
    """The numpy dtype that values of a dtype are kept as; bfloat16 as uint16."""
    return np.dtype({"bfloat16": "<u2", "float16": "<f2"}.get(name, "<f4"))


def bits_of(x: Tensor) -> np.ndarray:
    """A tensor as an array, bfloat16 as its bits."""
    return (x.view(torch.int16).cpu().numpy().view(np.uint16)) if x.dtype == torch.bfloat16 else x.cpu().numpy()


def _of_safetensors(data: bytes, name: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name} is no .safetensors file ({error})") from error
    return {key: found[key] for key in sorted(found)}


def _of_npz(data: bytes, name: str) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            sizes = {n: arrays.zip.getinfo(f"{n}.npy").file_size for n in arrays.files}
            if sum(sizes.values()) > max(1 << 30, 1000 * len(data)):
                raise InputError(f"{name} unpacks to {sum(sizes.values())} bytes from {len(data)}; refused")
            return {n: np.array(arrays[n]) for n in sorted(arrays.files)}
    except (ValueError, EOFError, TypeError, KeyError, OSError) as error:
        raise InputError(f"{name} is no .npz file of numbers ({error})") from error


TENSORS = Tensors()
