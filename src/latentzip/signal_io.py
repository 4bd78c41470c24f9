"""Signals: from what users hand in (Pillow image, ndarray, tensor) to the (C, H, W) floats codecs take, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .entropy.container import AUX, Box, Header
from .entropy.errors import FormatError, InputError
from .images import from_pillow, to_pillow
from .metadata import Metadata
from .planes import fill_hidden, pack_plane, unpack_plane

Target = Literal["signal", "pil", "numpy", "tensor"]
Region = tuple[int, int, int, int]

_TORCH = {
    "uint8": torch.uint8, "uint16": torch.uint16, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "float32": torch.float32, "float64": torch.float64,
}  # fmt: skip
_BYTES = {name: dtype.itemsize for name, dtype in _TORCH.items()}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_GREY = ("L", "LA", "L;1", "I;16", "I", "F")
_SLACK = 1e-3  # how far floats may leave [0, 1], as resizing makes them; beyond, the scale is probably not 0..1


@dataclass(frozen=True)
class Signal:
    """What a codec codes and what the container has to remember.

    Attributes:
        samples: (C, H, W) float32 in [0, 1].
        kind, dtype, mode: as in `container.Header`.
        boxes: metadata, and the alpha plane where there is one.
    """

    samples: Tensor
    kind: str
    dtype: str
    mode: str
    boxes: list[Box]


# --- in ----------------------------------------------------------------------------------------------------------


def is_batch(x: Any) -> bool:
    """Whether ``x`` stands for several signals."""
    return isinstance(x, (list, tuple)) or (isinstance(x, (np.ndarray, Tensor)) and x.ndim == 4)


def _planes(x: Tensor, dtype: str, what: str) -> Tensor:
    """(C, H, W) of any supported dtype -> float32 in [0, 1]."""
    if dtype == "uint8":
        return x.to(torch.float32).div_(255)
    if dtype == "uint16":
        return x.to(torch.float32).div_(65535)
    low, high = float(x.min()), float(x.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{what} contains NaN or infinite values; replace them first")
    if low < -_SLACK or high > 1 + _SLACK:
        raise InputError(
            f"{what} has floats from {low:.4g} to {high:.4g}; floats must lie in [0, 1] (divide by the largest value)"
        )
    return x.to(torch.float32).clamp(0, 1)


def _assemble(x: Tensor, kind: str, dtype: str, mode: str, channels: int, metadata: Metadata, what: str) -> Signal:
    """Split alpha off, make grey what the codec takes. ``x`` is (C, H, W) in the original dtype."""
    boxes = metadata.boxes()
    samples = _planes(x, dtype, what)
    if mode in ("LA", "RGBA"):
        alpha = x[-1].contiguous()
        hidden = samples[-1] == 0
        samples = samples[:-1]
        # same bytes as unsigned integers: numpy has no bfloat16, and bits are what is kept
        size = _BYTES[dtype]
        bits = alpha.cpu().view(torch.uint8).numpy().view(f"<u{size}").reshape(alpha.shape)
        boxes.append(Box(AUX, pack_plane(bits)))
        if bool(hidden.any()):
            samples = fill_hidden(samples, ~hidden)
    if samples.shape[0] == 1 and channels != 1:
        samples = samples.expand(channels, -1, -1) if channels == 3 else samples
    if samples.shape[0] != channels:
        raise InputError(f"{what} has {samples.shape[0]} channels; this codec takes {channels}")
    return Signal(samples, kind, dtype, mode, boxes)


def _from_numpy(a: np.ndarray, channels: int) -> Signal:
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
    return _assemble(_channels_first(a), "numpy", a.dtype.name, mode, channels, Metadata(), what)


def _channels_first(a: np.ndarray) -> Tensor:
    native = np.array(a, dtype=a.dtype.newbyteorder("="), order="C")  # torch needs native, writable, positive strides
    x = torch.from_numpy(native)
    return x[None] if x.ndim == 2 else x.permute(2, 0, 1)


def _from_tensor(x: Tensor, channels: int) -> Signal:
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
    return _assemble(x.detach(), "tensor", dtype, mode, channels, Metadata(), what)


def to_signal(x: Any, channels: int = 3, metadata: str = "auto", name: str = "picture") -> Signal:
    """One Pillow image, ndarray or tensor -> what codecs take. See docs/inputs.md.

    Raises:
        InputError: a type, shape, dtype or value that cannot be coded.
    """
    if isinstance(x, Image.Image):
        picture = from_pillow(x, metadata, name)
        dtype = picture.array.dtype.name
        return _assemble(_channels_first(picture.array), "pil", dtype, picture.mode, channels, picture.metadata, name)
    if isinstance(x, np.ndarray):
        return _from_numpy(x, channels)
    if isinstance(x, Tensor):
        return _from_tensor(x, channels)
    raise InputError(
        f"cannot encode a {type(x).__name__}; hand in a path, a Pillow image, a numpy array or a torch tensor"
    )


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


def check_boxes(header: Header, boxes: Sequence[Box]) -> None:
    """Raises FormatError when the auxiliary plane is missing, superfluous or does not unpack."""
    _alpha(header, boxes, None)


def _quantised(x: Tensor, dtype: str) -> Tensor:
    """Floats in [0, 1] -> the original dtype; ``x`` may be overwritten."""
    if dtype == "uint8":
        return x.mul_(255).round_().to(torch.uint8)
    if dtype == "uint16":
        return x.mul_(65535).round_().to(torch.int32).to(torch.uint16)
    return x.to(_TORCH[dtype])


def from_signal(
    samples: Tensor, header: Header, boxes: Sequence[Box], to: Target = "signal", region: Region | None = None
) -> Any:
    """Decoded floats (C, H, W) in [0, 1] -> what was handed in, or what ``to`` asks for.

    Args:
        region: the part that ``samples`` is of, for the alpha plane. ``samples`` may be overwritten.

    Raises:
        FormatError: header and boxes contradict each other.
    """
    mode = header.mode
    alpha = _alpha(header, boxes, region)
    if mode in _GREY and samples.shape[0] > 1:
        samples = samples.mean(0, keepdim=True)
    if mode and samples.shape[0] + (alpha is not None) != _expected_channels(mode):
        raise FormatError(f"a stream of {samples.shape[0]} channels cannot be of mode {mode}")
    kind = header.kind if to == "signal" else to
    if kind == "tensor" and header.kind != "tensor":
        if alpha is not None:
            top = {"uint8": 255.0, "uint16": 65535.0}.get(header.dtype, 1.0)
            samples = torch.cat([samples, (alpha.to(samples) / top)[None]])
        return samples
    x = _quantised(samples, header.dtype)
    if alpha is not None:
        x = torch.cat([x, alpha[None].to(x.device)])
    if kind == "tensor":
        return x
    x = x.cpu()
    array = (x.float() if x.dtype == torch.bfloat16 else x).permute(1, 2, 0).contiguous().numpy()
    if kind == "pil":
        return to_pillow(array, mode, Metadata.from_boxes(boxes))
    if mode in _GREY and mode not in ("L;1", "LA"):
        array = array[..., 0]
    return array.astype(np.int32) if mode == "I" else array
