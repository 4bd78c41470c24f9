"""Signals: from what users hand in (Pillow image, ndarray, tensor) to the (C, H, W) floats codecs take, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from struct import Struct
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...codecs.samples import FULL_SCALE, Samples, Values, dtype_of, extremes, stepped
from ...entropy.container import AUX, RANGE, Box, Header
from ...entropy.errors import FormatError, InputError
from ..coding import Region, ValueRange
from .files import from_pillow, to_pillow
from .metadata import Metadata
from .planes import fill_hidden, pack_plane, unpack_plane

Target = Literal["signal", "pil", "numpy", "tensor"]

_TORCH = {
    "uint8": torch.uint8, "uint16": torch.uint16, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "float32": torch.float32, "float64": torch.float64,
}  # fmt: skip
_BYTES = {name: dtype.itemsize for name, dtype in _TORCH.items()}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_RANGE = Struct("<dd")  # the RANGE box: what 0 and what 1 stand for
_GREY = ("L", "LA", "L;1", "I;16", "I", "F")
_WHOLE = 7 / 8  # of the range of uint16: pictures that fill as much of it are coded against all of it


@dataclass(frozen=True)
class Signal:
    """What a codec codes and what the container has to remember.

    Attributes:
        samples: (C, H, W), read as float32 in [0, 1].
        kind, dtype, mode: as in `container.Header`.
        boxes: metadata; the alpha plane, and the range that counts as full scale, where there are such.
    """

    samples: Samples
    kind: str
    dtype: str
    mode: str
    boxes: list[Box]


# --- in ----------------------------------------------------------------------------------------------------------


def _span(x: Values, value_range: ValueRange) -> tuple[float, float] | None:
    """What counts as full scale; None for that of the dtype.

    Scans of 16 bits often use a few thousand values: against 65535, a codec would see next to no picture.
    """
    dtype = dtype_of(x)
    if isinstance(value_range, tuple):
        return float(value_range[0]), float(value_range[1])
    if value_range is None and dtype != "uint16":
        return None
    span = extremes(x)
    if dtype == "uint16" and value_range is None and span[1] - span[0] >= _WHOLE * 65535:
        return None
    return span if np.isfinite(span).all() else None


def _assemble(
    x: Values, kind: str, mode: str, channels: int, metadata: Metadata, what: str, value_range: ValueRange = None
) -> Signal:
    """Split alpha off, make grey what the codec takes. ``x`` is (C, H, W) in the original dtype."""
    dtype, boxes = dtype_of(x), metadata.boxes()
    hidden = None
    if mode in ("LA", "RGBA"):
        alpha = _bits(x[-1])
        boxes.append(Box(AUX, pack_plane(alpha)))
        Samples.of(x[-1:], what)
        x, hidden = x[:-1], alpha == 0
    span = _span(x, value_range)
    samples = Samples.of(x, what, span)
    if span is not None:
        boxes.append(Box(RANGE, _RANGE.pack(*span)))
    if hidden is not None and hidden.any():
        samples = Samples(fill_hidden(samples.all(), torch.from_numpy(~hidden).to(_device(x))), 0.0, 1.0)
    count = samples.shape[0]
    if count != channels and (count, channels) != (1, 3):  # grey: see `to_signal`
        raise InputError(f"{what} has {count} channels; this codec takes {channels}")
    return Signal(samples, kind, dtype, mode, boxes)


def _repeated(values: Values, channels: int) -> Values:
    if isinstance(values, np.ndarray):
        return np.broadcast_to(values, (channels, *values.shape[1:]))
    return values.expand(channels, -1, -1)


def _device(x: Values) -> torch.device:
    return x.device if isinstance(x, Tensor) else torch.device("cpu")


def _bits(alpha: Values) -> np.ndarray:
    """A plane (H, W) as unsigned integers of the same bits: numpy has no bfloat16, and bits are what is kept."""
    size = _BYTES[dtype_of(alpha)]
    if isinstance(alpha, np.ndarray):
        little = np.ascontiguousarray(alpha, alpha.dtype.newbyteorder("<"))
        return little.view(f"<u{size}")
    return alpha.contiguous().cpu().view(torch.uint8).numpy().view(f"<u{size}").reshape(alpha.shape)


def _from_numpy(a: np.ndarray, channels: int, value_range: ValueRange) -> Signal:
    what = f"the array {a.dtype}{a.shape}"
    if a.dtype.name not in ("uint8", "uint16", "float16", "float32", "float64"):
        hint = "multiply by 255 and convert to uint8" if a.dtype == bool else "convert it to uint8, uint16 or float"
        raise InputError(f"{what}: this dtype is not supported; {hint}")
    if a.ndim not in (2, 3) or 0 in a.shape or (a.ndim == 3 and a.shape[2] not in _MODES):
        hint = ""
        if a.ndim == 3 and a.shape[0] in _MODES and 0 not in a.shape:
            hint = "; channels come last in arrays: use x.transpose(1, 2, 0)"
        raise InputError(f"{what}: arrays must be (H, W) or (H, W, 1|2|3|4) with H, W >= 1{hint}")
    mode = "L" if a.ndim == 2 else "L;1" if a.shape[2] == 1 else _MODES[a.shape[2]]
    return _assemble(_channels_first(a), "numpy", mode, channels, Metadata(), what, value_range)


def _channels_first(a: np.ndarray) -> np.ndarray:
    return a[None] if a.ndim == 2 else np.moveaxis(a, 2, 0)


def _from_tensor(x: Tensor, channels: int, value_range: ValueRange) -> Signal:
    dtype = str(x.dtype).removeprefix("torch.")
    what = f"the tensor {dtype}{tuple(x.shape)}"
    if dtype not in _TORCH:
        raise InputError(f"{what}: this dtype is not supported; convert it to uint8, uint16 or float")
    if x.ndim != 3 or 0 in x.shape:
        raise InputError(f"{what}: tensors must be (C, H, W) or (B, C, H, W) with H, W >= 1")
    if x.shape[0] not in _MODES and x.shape[0] != channels:
        hint = "; channels come first in tensors: use x.permute(2, 0, 1)" if x.shape[2] in _MODES else ""
        raise InputError(f"{what}: this codec takes {channels} channels{hint}")
    mode = "" if x.shape[0] == channels and channels not in (1, 3) else _MODES[x.shape[0]]
    return _assemble(x.detach(), "tensor", mode, channels, Metadata(), what, value_range)


def to_signal(
    x: Any,
    channels: int = 3,
    metadata: str = "auto",
    name: str = "picture",
    value_range: ValueRange = None,
    grey: bool = False,
) -> Signal:
    """One Pillow image, ndarray or tensor -> what codecs take. See docs/inputs.md.

    Args:
        grey: the codec takes one channel of a grey picture as it is; others get it three times.
        value_range: (low, high) that counts as full scale, or "auto" for the lowest and the highest value; None takes
            that of the dtype, and for uint16 the lowest and the highest value where they fill less than 7/8 of it.

    Raises:
        InputError: a type, shape, dtype or value that cannot be coded.
    """
    if isinstance(x, Image.Image):
        picture = from_pillow(x, metadata, name)
        array = _channels_first(picture.array)
        signal = _assemble(array, "pil", picture.mode, channels, picture.metadata, name, value_range)
    elif isinstance(x, np.ndarray):
        signal = _from_numpy(x, channels, value_range)
    elif isinstance(x, Tensor):
        signal = _from_tensor(x, channels, value_range)
    else:
        raise InputError(
            f"cannot encode a {type(x).__name__}; hand in a path, a Pillow image, a numpy array or a torch tensor"
        )
    if signal.samples.shape[0] == channels or grey:
        return signal
    return replace(signal, samples=replace(signal.samples, values=_repeated(signal.samples.values, channels)))


# --- out ---------------------------------------------------------------------------------------------------------


def _expected_channels(mode: str) -> int:
    return {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 1)


def _alpha(header: Header, boxes: Sequence[Box], region: Region | None) -> Tensor | None:
    """The alpha plane (H, W) in the original dtype; None where the mode has none."""
    data = next((box.data for box in boxes if box.type == AUX), None)
    if header.mode not in ("LA", "RGBA"):
        if data is not None:
            raise FormatError(f"an auxiliary plane in a stream of mode {header.mode or 'none'}")
        return None
    if data is None:
        raise FormatError(f"the alpha plane of a {header.mode} stream is missing")
    size = header.shape[-2], header.shape[-1]
    plane = unpack_plane(data, size, np.dtype(f"<u{_BYTES[header.dtype]}"))
    if region is not None:
        plane = plane[region[0] : region[2], region[1] : region[3]]
    flat = np.ascontiguousarray(plane).view(np.uint8)
    return torch.from_numpy(flat.copy()).view(_TORCH[header.dtype])


def stored_range(header: Header, boxes: Sequence[Box]) -> tuple[float, float]:
    """What 0 and 1 stand for in the original's unit.

    Raises:
        FormatError: not two finite numbers in order, or beyond what the dtype holds.
    """
    full = float(FULL_SCALE.get(header.dtype, 1))
    data = next((box.data for box in boxes if box.type == RANGE), None)
    if data is None:
        return 0.0, full
    if len(data) != _RANGE.size:
        raise FormatError(f"a range of {len(data)} bytes; {_RANGE.size} are needed")
    low, high = _RANGE.unpack(data)
    if not (np.isfinite(low) and np.isfinite(high) and low <= high and np.isfinite(high - low)):
        raise FormatError(f"the range {low} to {high} of a stream is none")
    if header.dtype in FULL_SCALE and not (low >= 0 and high <= full):
        raise FormatError(f"the range {low:g} to {high:g} lies beyond what {header.dtype} holds")
    return low, high


def check_boxes(header: Header, boxes: Sequence[Box]) -> None:
    """Raises FormatError when the auxiliary plane is missing, superfluous or does not unpack, or the range is none."""
    _alpha(header, boxes, None)
    stored_range(header, boxes)


def _scaled(x: Tensor, low: float, high: float) -> Tensor:
    """Floats in [0, 1] in a unit where ``low`` stands for 0 and ``high`` for 1; ``x`` may be overwritten."""
    if low == 0:
        return x if high == 1 else x.mul_(high)
    return x.to(torch.float64).mul_(high - low).add_(low)


def _quantised(x: Tensor, dtype: str, low: float, high: float) -> Tensor:
    """Floats in [0, 1] -> the original dtype; ``x`` may be overwritten."""
    if dtype in FULL_SCALE and (low, high) == (0.0, float(FULL_SCALE[dtype])):
        return stepped(x, dtype)
    x = _scaled(x, low, high)
    if dtype == "uint8":
        return x.round_().to(torch.uint8)
    if dtype == "uint16":
        return x.round_().to(torch.int32).to(torch.uint16)
    return x.to(_TORCH[dtype])


def ready_dtype(header: Header, boxes: Sequence[Box], to: Target) -> str | None:
    """The dtype that a codec may round to by itself, as `from_signal` would; None where that has more to do."""
    as_floats = header.kind != "tensor" and to == "tensor"
    if header.dtype not in FULL_SCALE or header.mode in _GREY or as_floats or any(b.type == RANGE for b in boxes):
        return None
    return header.dtype


def from_signal(
    samples: Tensor, header: Header, boxes: Sequence[Box], to: Target = "signal", region: Region | None = None
) -> Any:
    """Decoded floats (C, H, W) in [0, 1], or integers of `ready_dtype` -> what was handed in, or what ``to`` asks for.

    Args:
        region: the part that ``samples`` is of, for the alpha plane. ``samples`` may be overwritten.

    Raises:
        FormatError: header and boxes contradict each other.
    """
    mode = header.mode
    low, high = stored_range(header, boxes)
    alpha = _alpha(header, boxes, region)
    if mode in _GREY and samples.shape[0] > 1:
        samples = samples.mean(0, keepdim=True)
    if mode and samples.shape[0] + (alpha is not None) != _expected_channels(mode):
        raise FormatError(f"a stream of {samples.shape[0]} channels cannot be of mode {mode}")
    kind = header.kind if to == "signal" else to
    if kind == "tensor" and header.kind != "tensor":
        top = float(FULL_SCALE.get(header.dtype, 1))
        if (low, high) != (0.0, top):
            samples = (_scaled(samples, low, high) / top).to(torch.float32)
        if alpha is not None:
            samples = torch.cat([samples, (alpha.to(samples) / top)[None]])
        return samples
    x = _quantised(samples, header.dtype, low, high) if samples.is_floating_point() else samples
    if alpha is not None:
        x = torch.cat([x, alpha[None].to(x.device)])
    if kind == "tensor":
        return x.contiguous()
    x = x.cpu()
    array = (x.float() if x.dtype == torch.bfloat16 else x).permute(1, 2, 0).contiguous().numpy()
    if kind == "pil":
        return to_pillow(array, mode, Metadata.from_boxes(boxes))
    if mode in _GREY and mode not in ("L;1", "LA"):
        array = array[..., 0]
    return array.astype(np.int32) if mode == "I" else array
