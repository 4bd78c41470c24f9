"""Planes coded without loss beside the picture (alpha), and the colour that nobody sees under full transparency."""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...entropy.errors import FormatError

_ALPHA = 1  # what the plane is; other numbers are free
_PLAIN, _LEFT, _UP = 0, 1, 2  # what is subtracted from each sample, modulo its range


def pack_plane(plane: np.ndarray) -> bytes:
    """A plane (H, W) of 1, 2, 4 or 8 byte samples -> bytes of the AUX box (docs/format.md)."""
    bits = np.ascontiguousarray(plane).view(f"<u{plane.dtype.itemsize}")
    left, up = bits.copy(), bits.copy()
    left[:, 1:] -= bits[:, :-1]
    up[1:] -= bits[:-1]
    candidates = {_PLAIN: bits, _LEFT: left, _UP: up}
    method = min(candidates, key=lambda m: int(np.count_nonzero(candidates[m])))
    # bytes of equal significance together: high bytes are mostly equal
    split = candidates[method].view(np.uint8).reshape(-1, plane.dtype.itemsize).T
    return bytes([_ALPHA, method]) + zlib.compress(split.tobytes(), 6)


def unpack_plane(data: bytes, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Inverse of `pack_plane`; never allocates more than the plane needs.

    Raises:
        FormatError: not a plane of this shape and dtype.
    """
    if len(data) < 2 or data[0] != _ALPHA or data[1] > _UP:
        raise FormatError("the auxiliary plane is of an unknown kind; the file may need a newer latentzip")
    size = shape[0] * shape[1] * dtype.itemsize
    stream = zlib.decompressobj()
    try:
        # one byte more than the plane has, so that the end of the stream is always reached
        raw = stream.decompress(data[2:], size + 1)
    except zlib.error as error:
        raise FormatError(f"the auxiliary plane does not decompress: {error}") from error
    if len(raw) != size or not stream.eof or stream.unused_data or stream.unconsumed_tail:
        raise FormatError(f"the auxiliary plane does not have the {size} bytes that the size asks for")
    split = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    bits = np.ascontiguousarray(split.T).view(f"<u{dtype.itemsize}").reshape(shape)
    if data[1] != _PLAIN:
        bits = np.cumsum(bits, axis=1 if data[1] == _LEFT else 0, dtype=bits.dtype)
    return bits.view(dtype)


def fill_hidden(colour: Tensor, visible: Tensor) -> Tensor:
    """Replace colour (C, H, W) where ``visible`` (H, W) is False by a smooth continuation of its surroundings.

    Nobody sees these samples, and edges in them would cost bits and ring into what is seen.
    """
    weight = visible.to(colour.dtype)[None]
    mass = colour * weight
    levels: list[tuple[Tensor, Tensor]] = []
    while True:
        levels.append((mass / weight.clamp_min(1e-12), weight > 0))
        if bool(levels[-1][1].all()) or max(mass.shape[1:]) == 1:
            break
        mass = F.avg_pool2d(mass[None], 2, ceil_mode=True)[0]
        weight = F.avg_pool2d(weight[None], 2, ceil_mode=True)[0]
    out = levels.pop()[0]
    for mean, known in reversed(levels):
        size = (mean.shape[1], mean.shape[2])
        wide = F.interpolate(out[None], size=size, mode="bilinear", align_corners=False)[0]
        out = torch.where(known, mean, wide)
    return out
