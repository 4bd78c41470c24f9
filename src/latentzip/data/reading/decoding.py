"""Streams of one codec -> latents or signals, a batch at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...codecs.base import Codec, Shape
from ...codecs.contract import EXACT, LATENT
from ...codecs.registry import load_codec
from ...entropy import container
from ...entropy.batch import run_batch
from ...entropy.blocks import decode as decode_blocks
from ...entropy.container import Container
from ...entropy.errors import FormatError
from ...signals.pictures import PICTURES


def keeps_pictures(codec: Codec) -> bool:
    """Whether packs of a codec hold pictures and no latents: it is exact, or its latent is of no one shape."""
    return EXACT in codec.capabilities or LATENT not in codec.capabilities


def _open(blob: bytes, codec: Codec, fingerprint: bytes) -> Container:
    stream = container.read(blob)
    header = stream.header
    if header.codec != codec.name or header.fingerprint != fingerprint:
        raise FormatError(
            f"a stream of {header.codec} ({header.fingerprint.hex()}) in a data set of {codec.name} "
            f"({fingerprint.hex()}): the pack is damaged, check it with codec-cli verify"
        )
    channels = header.shape[:1] if keeps_pictures(codec) else (codec.signal_channels,)
    if header.modality != codec.modality or len(header.shape) != 3 or header.shape[:1] != channels:
        raise FormatError(f"a stream of {header.modality} {header.shape} that claims to be of {codec.name}: damaged")
    return stream


def codec_of(manifest: dict[str, Any], device: str = "cpu") -> Codec:
    """The codec with the weights that a pack was made with; raises FormatError where it contradicts the manifest."""
    codec = load_codec(manifest["codec"], device, fingerprint=bytes.fromhex(manifest["fingerprint"]))
    latent = manifest["latent"]
    if (latent is None) != keeps_pictures(codec):
        raise FormatError(f"the manifest of a pack of {codec.name} is damaged, check it with codec-cli verify")
    if latent is None:
        return codec
    facts = codec.modality, codec.latent_channels, str(codec.latent_dtype).removeprefix("torch.")
    if facts != (manifest["modality"], latent["channels"], latent["dtype"]):
        raise FormatError(
            f"the manifest says {latent['channels']} channels of {latent['dtype']}, {codec.name} has {facts[1]} of "
            f"{facts[2]}: the pack is damaged, check it with codec-cli verify"
        )
    return codec


def latent_size(codec: Codec, size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the latent of a picture of (H, W) pixels; itself where packs keep pictures."""
    if keeps_pictures(codec):
        return size
    unit = codec.stride * codec.latent_multiple
    return -(-size[0] // unit) * codec.latent_multiple, -(-size[1] // unit) * codec.latent_multiple


class _LatentReader:
    """Reads latents of one codec; what holds for all streams of one shape is worked out once."""

    def __init__(self, codec: Codec) -> None:
        self.codec, self.fingerprint = codec, codec.fingerprint
        self.dtype = np.dtype(np.int8 if codec.latent_dtype == torch.int8 else np.int16)
        self._shapes: dict[tuple[bytes, tuple[int, ...], int], Shape | None] = {}

    def check(self, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
        """Raises FormatError when a latent has another shape than all are said to have."""
        if tuple(found) != tuple(expected):
            raise FormatError(
                f"a latent of shape {tuple(found)} in a data set of {tuple(expected)}: the manifest is wrong"
            )

    def read(self, blob: bytes, out: np.ndarray | None) -> np.ndarray:
        """The latent (L, h, w), decoded into ``out`` where that is given."""
        codec, stream = self.codec, _open(blob, self.codec, self.fingerprint)
        header, count = stream.header, len(stream.chunks)
        size = header.shape[-2], header.shape[-1]
        key = header.params, header.shape, count
        if key not in self._shapes:
            self._shapes[key] = codec.single_fast_chunk(header.params, count, size)
        shape = self._shapes[key]
        if shape is None:
            latent = codec.decompress(header.params, stream.chunks, size, to="latent").numpy()
            shape = latent.shape
        else:
            latent = None
        if out is not None:
            self.check(shape, out.shape)
        if latent is None:
            latent = np.empty(shape, self.dtype) if out is None else out
            decode_blocks(stream.chunks[0], latent, codec.latent_limit)
        elif out is not None:
            out[...] = latent
        return latent


def decode_latents(
    blobs: Sequence[bytes], codec: Codec, threads: int = 1, shape: tuple[int, ...] | None = None
) -> np.ndarray | list[np.ndarray]:
    """Entropy-decode a batch in one call over threads; the GIL is released in the coder.

    Args:
        blobs: `.ltz` streams of `codec`.
        threads: at most so many.
        shape: (L, h, w) that all latents are known to have: then they are decoded into one array.

    Returns:
        (B, L, h, w) int8 or int16 with a shape, else a list of (L, h, w).

    Raises:
        FormatError: a stream is damaged, of another codec, or of another shape.
    """
    reader = _LatentReader(codec)
    if shape is not None and len(blobs):  # before so many of them are allocated
        size = _open(blobs[0], codec, reader.fingerprint).header.shape[-2:]
        reader.check((codec.latent_channels, *latent_size(codec, (size[0], size[1]))), shape)
    edges = [len(blobs) * i // max(threads, 1) for i in range(max(threads, 1) + 1)]
    spans = [range(a, b) for a, b in zip(edges, edges[1:]) if a < b]
    if shape is None:
        parts = run_batch(lambda span: [reader.read(blobs[i], None) for i in span], spans, threads=threads)
        return [latent for part in parts for latent in part]
    out = np.empty((len(blobs), *shape), reader.dtype)

    def fill(span: range) -> None:
        for i in span:
            reader.read(blobs[i], out[i])

    run_batch(fill, spans, threads=threads)
    return out


def decode_signals(blobs: Sequence[bytes], codec: Codec, threads: int = 1) -> list[Tensor]:
    """Streams -> signals (C, H, W) float32 in [0, 1] on the codec's device; equal shapes are decoded as one batch."""
    from ...api import decode

    fingerprint = codec.fingerprint
    streams = [_open(blob, codec, fingerprint) for blob in blobs]
    if keeps_pictures(codec):
        return run_batch(lambda blob: decode(blob, "tensor", codec=codec), blobs, threads=threads)
    latents = decode_latents(blobs, codec, threads)
    out: list[Tensor | None] = [None] * len(blobs)
    groups: dict[tuple[bytes, tuple[int, ...]], list[int]] = defaultdict(list)
    for i, stream in enumerate(streams):
        groups[stream.header.params, stream.header.shape].append(i)
    for (params, shape), members in groups.items():
        size = shape[-2], shape[-1]
        # large pictures go tile by tile, and what the latent alone does not decide is the codec's business
        if max(latents[members[0]].shape[-2:]) > codec.tile or not codec.fast_coding:
            for i in members:
                out[i] = codec.decompress(params, streams[i].chunks, size)
            continue
        stacked = torch.from_numpy(np.stack([latents[i] for i in members])).to(codec.device)
        signals = codec.synthesis(stacked, size, PICTURES.quality(params)).clamp(0, 1)  # a new tensor, fit for training
        for i, signal in zip(members, signals):
            out[i] = signal
    return [signal for signal in out if signal is not None]
