"""Packs of pictures (`modality.base`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...codecs.base import Codec, Shape
from ...codecs.contract import EXACT
from ...entropy import container
from ...entropy.alike import Alike
from ...entropy.batch import run_batch
from ...entropy.container import Container
from ...entropy.errors import FormatError, InputError
from ...signals.pictures import PICTURES as KIND
from ...signals.pictures import SUFFIXES
from . import prepare
from .base import Modality, Options, Piece, Table, check_shape, common_shapes, keeps_signals, opened, spread

_LOSSLESS = {".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".qoi", ".tga"}
_KINDS = 8  # headers that a reader keeps in mind
_SOURCE_BPP = {True: 12.0, False: 2.5}  # of lossless and of lossy pictures, roughly


class Pictures(Modality):
    name, noun, one = "image", "pictures", "picture"
    suffixes = SUFFIXES
    columns: ClassVar[Mapping[str, str]] = {
        "width": "int32",
        "height": "int32",
        "latent_h": "int32",
        "latent_w": "int32",
    }
    shape_columns = ("latent_h", "latent_w")
    output, feature = "latent", "Image"
    formats = ("png", "tif", "npy")

    # --- writing -------------------------------------------------------------------------------------------------

    def check(self, options: Options) -> None:
        for name, plain in (("seconds", None), ("rate", None), ("channels", "keep"), ("short", "pad")):
            if getattr(options, name) != plain:
                raise InputError(f"{name} is for sound; pictures take size and crop")
        prepare.check_options(options.size, options.crop)

    def specimen(self, codec: Any) -> Any:
        return Image.new("RGB", (16, 16))

    def load(self, data: bytes, name: str, options: Options, codec: Any) -> Any:
        exact = EXACT in codec.capabilities and options.size is None
        return (prepare.exact_picture if exact else prepare.load_picture)(data, name, options.size, options.crop)

    def accept(self, x: Any) -> Any:
        if not isinstance(x, Image.Image):
            raise InputError(f"pictures come as Pillow images, not {type(x).__name__}")
        return x

    def pieces(self, x: Any, options: Options, codec: Any) -> Iterator[Piece]:
        if isinstance(x, Image.Image):
            exact = EXACT in codec.capabilities and options.size is None
            x = (x, x.size) if exact else prepare.prepared(x, "picture", options.size, options.crop)
        image, original = x
        yield Piece("", image, original)

    def encode(self, signal: Any, options: Options, codec: Any) -> bytes:
        from ...api import encode

        return encode(signal, codec, metadata="none", **options.said())

    def shape_row(self, piece: Piece, blob: bytes, codec: Any) -> tuple[Any, ...]:
        return latent_size(codec, (piece.signal.height, piece.signal.width))

    def mirrored(self, signal: Any) -> Any:
        return prepare.mirrored(signal)

    def describe(self, columns: Mapping[str, np.ndarray], options: Options, codec: Any) -> dict[str, Any]:
        latent, signal = None, {}
        if not keeps_signals(codec):
            shapes = common_shapes(self.shape_texts([columns[n] for n in self.shape_columns]))
            one = [*map(int, next(iter(shapes)).split("x"))] if len(shapes) == 1 else None
            signal = {"channels": codec.signal_channels}
            latent = {
                "channels": codec.latent_channels,
                "dtype": str(codec.latent_dtype).removeprefix("torch."),
                "stride": codec.stride,
                "fixed_shape": None if one is None else [codec.latent_channels, *one],
                "shapes": shapes,
            }
        return {
            "latent": latent,
            "signal": signal | {"size": options.size, "crop": options.crop, "mirror": options.mirror},
        }

    def bytes_of(
        self, options: Options, num_bytes: Sequence[int], names: Sequence[str], rates: Mapping[str, Any]
    ) -> float:
        bpp = max((v for k, v in rates.items() if k.endswith("bpp") and isinstance(v, (int, float))), default=1.0)
        if options.size is not None:
            return options.size**2 * bpp / 8
        parts = (_SOURCE_BPP[Path(name).suffix.lower() in _LOSSLESS] for name in names)
        return sum(size * min(1.0, bpp / part) for size, part in zip(num_bytes, parts)) / len(num_bytes)

    # --- reading -------------------------------------------------------------------------------------------------

    def shape_text(self, fixed: Sequence[int]) -> str:
        return super().shape_text(fixed[1:])  # all have the same channels

    def check_codec(self, facts: Mapping[str, Any], codec: Any) -> None:
        latent = facts["latent"]
        if latent is None:
            return
        own = codec.modality, codec.latent_channels, str(codec.latent_dtype).removeprefix("torch.")
        if own != (self.name, latent["channels"], latent["dtype"]):
            raise FormatError(
                f"the manifest says {latent['channels']} channels of {latent['dtype']}, {codec.name} has {own[1]} of "
                f"{own[2]}: the pack is damaged, check it with codec-cli verify"
            )

    def arrays(
        self,
        blobs: Sequence[bytes],
        codec: Any,
        threads: int,
        table: Table,
        spans: Sequence[tuple[int, int]] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        reader = _LatentReader(codec)
        shape = table.shape
        if shape is not None and len(blobs):  # before so many of them are allocated
            size = reader.open(blobs[0]).header.shape[-2:]
            check_shape((codec.latent_channels, *latent_size(codec, (size[0], size[1]))), shape)
        out = None if shape is None else np.empty((len(blobs), *shape), reader.dtype)

        def read(span: range) -> list[np.ndarray]:
            part = slice(span.start, span.stop)
            return reader.read(blobs[part], None if out is None else out[part])

        parts = run_batch(read, spread(len(blobs), threads), threads=threads)
        return [latent for part in parts for latent in part] if out is None else out

    def signals(
        self, blobs: Sequence[bytes], codec: Any, threads: int, spans: Sequence[tuple[int, int]] | None = None
    ) -> list[Tensor]:
        """(C, H, W) float32 in [0, 1]; equal shapes are decoded as one batch."""
        from ...api import decode

        fingerprint = codec.fingerprint
        streams = [_open(blob, codec, fingerprint) for blob in blobs]
        if keeps_signals(codec):
            return run_batch(lambda blob: decode(blob, "tensor", codec=codec), blobs, threads=threads)
        sizes = [(stream.header.shape[-2], stream.header.shape[-1]) for stream in streams]
        small = all(max(codec.latent_size(size)) <= codec.tile for size in sizes)  # larger ones go tile by tile
        if small and codec.decodes_batches:
            return codec.decode(blobs)
        if not codec.fast_coding:  # what the latent alone does not decide is the codec's business
            return [codec.decompress(s.header.params, s.chunks, size) for s, size in zip(streams, sizes)]
        latents = self.arrays(blobs, codec, threads, Table(None, None))
        out: list[Tensor | None] = [None] * len(blobs)
        groups: dict[tuple[bytes, tuple[int, ...]], list[int]] = defaultdict(list)
        for i, stream in enumerate(streams):
            groups[stream.header.params, stream.header.shape].append(i)
        for (params, shape), members in groups.items():
            size = shape[-2], shape[-1]
            if max(latents[members[0]].shape[-2:]) > codec.tile:
                for i in members:
                    out[i] = codec.decompress(params, streams[i].chunks, size)
                continue
            stacked = torch.from_numpy(np.stack([latents[i] for i in members])).to(codec.device)
            signals = codec.synthesis(stacked, size, KIND.quality(params)).clamp(0, 1)  # a new tensor, fit for training
            for i, signal in zip(members, signals):
                out[i] = signal
        return [signal for signal in out if signal is not None]

    def check_stream(self, blob: bytes, codec: Any, row: tuple[Any, ...] | None) -> str | None:
        from ...api import decode
        from ...signals.pictures.coding import check_stream_boxes

        latent = decode(blob, "tensor" if keeps_signals(codec) else "latent", codec=codec)
        check_stream_boxes(container.read(blob), codec)
        if row is None or tuple(latent.shape[1:]) == row:
            return None
        return f"a latent of {latent.shape[1]} x {latent.shape[2]} positions, the columns say {row[0]} x {row[1]}"


def latent_size(codec: Any, size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the latent of a picture of (H, W) pixels; itself where packs keep pictures."""
    return size if keeps_signals(codec) else codec.latent_size(size)


def _open(blob: bytes, codec: Codec, fingerprint: bytes) -> Container:
    stream = opened(blob, codec, "image", fingerprint)
    header = stream.header
    channels = header.shape[:1] if keeps_signals(codec) else (codec.signal_channels,)
    if len(header.shape) != 3 or header.shape[:1] != channels:
        raise FormatError(f"a stream of {header.modality} {header.shape} that claims to be of {codec.name}: damaged")
    return stream


class _LatentReader:
    """Reads latents of one codec; what holds for all streams of one shape is worked out once."""

    def __init__(self, codec: Codec) -> None:
        self.codec, self.fingerprint = codec, codec.fingerprint
        self.dtype = np.dtype(np.int8 if codec.latent_dtype == torch.int8 else np.int16)
        self._kinds: list[tuple[Alike, bytes, Shape]] = []  # headers seen: how to take streams apart, parameters, shape

    def open(self, blob: bytes) -> Container:
        """The stream of a record."""
        return _open(blob, self.codec, self.fingerprint)

    def read(self, blobs: Sequence[bytes], out: np.ndarray | None) -> list[np.ndarray]:
        """The latents (L, h, w), those of one shape decoded together, into ``out`` (n, L, h, w) where that is given."""
        found: list[np.ndarray | None] = [None] * len(blobs)
        alike: dict[tuple[bytes, Shape], list[tuple[int, bytes]]] = defaultdict(list)
        for i, blob in enumerate(blobs):
            single = self._single(blob)
            if isinstance(single, np.ndarray):
                found[i] = single
            else:
                params, shape, chunk = single
                alike[params, shape].append((i, chunk))
        for (params, shape), members in alike.items():
            if out is not None:
                check_shape(shape, out.shape[1:])
            latents = out
            if latents is None or len(members) < len(blobs):
                latents = np.empty((len(members), *shape), self.dtype)
            self.codec.decode_singles(params, [chunk for _, chunk in members], latents)
            for (i, _), latent in zip(members, latents):
                found[i] = latent
        for i, latent in enumerate(found):
            assert latent is not None
            if out is not None and latent.base is not out:
                check_shape(latent.shape, out.shape[1:])
                out[i] = latent
        return [latent for latent in found if latent is not None]

    def _single(self, blob: bytes) -> tuple[bytes, Shape, bytes] | np.ndarray:
        """Parameters, shape and chunk of a stream that has only one, else its latent."""
        for kind, params, shape in self._kinds:
            chunk = kind.chunk(blob)
            if chunk is not None:
                return params, shape, chunk
        codec, stream = self.codec, self.open(blob)
        params, count = stream.header.params, len(stream.chunks)
        size = stream.header.shape[-2], stream.header.shape[-1]
        shape = codec.single_chunk(params, count, size)
        if shape is None:
            return codec.decompress(params, stream.chunks, size, to="latent").numpy()
        chunk = stream.chunks[0]
        if Alike.suits(stream) and len(self._kinds) < _KINDS:
            self._kinds.append((Alike(blob, stream), params, shape))
        return params, shape, chunk


PICTURES = Pictures()
