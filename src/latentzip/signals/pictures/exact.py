"""Pictures as the integers they are made of, for codecs that lose nothing: no float, no conversion of modes.

What Pillow calls a mode comes back: palettes (P) with their palette, 1 bit (1), transparency as it was stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...entropy.container import PALETTE, TRNS, Box, Header
from ...entropy.errors import FormatError, InputError
from ...warn import converted
from . import deep
from .files import from_pillow, to_pillow, upright
from .metadata import Metadata, collect

# modes that are coded as they are, with their channels
_MODES = {"1": 1, "P": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3, "LAB": 3, "HSV": 3}
_CHANNELS = _MODES | {"I;16": 1, "I": 1, "L;1": 1}
_ARRAYS = {1: "L;1", 2: "LA", 3: "RGB", 4: "RGBA"}
_FULL = {"uint8": 255, "uint16": 65535}


@dataclass(frozen=True)
class Exact:
    """What an exact codec codes and what the container has to remember.

    Attributes:
        samples: (C, H, W) uint8 or uint16, alpha included.
        kind, dtype, mode: as in `container.Header`.
        boxes: metadata, palette, transparent colour.
    """

    samples: np.ndarray
    kind: str
    dtype: str
    mode: str
    boxes: list[Box]


def to_exact(x: Any, metadata: str = "auto", name: str = "picture") -> Exact:
    """A Pillow image, ndarray or tensor of integers -> its planes.

    Raises:
        InputError: floats, other integers, or a file whose samples no installed reader gives in full.
    """
    if isinstance(x, Image.Image):
        return _of_pillow(x, metadata, name)
    if isinstance(x, Tensor):
        what, dtype = f"the tensor {x.dtype}{tuple(x.shape)}", str(x.dtype).removeprefix("torch.")
        _check_dtype(dtype, what)
        if x.ndim != 3 or 0 in x.shape or x.shape[0] > 4:
            raise InputError(f"{what}: tensors must be (C, H, W) with C = 1..4 and H, W >= 1")
        return Exact(
            x.detach().cpu().contiguous().numpy(), "tensor", dtype, "L;1" if len(x) == 1 else _ARRAYS[len(x)], []
        )
    if isinstance(x, np.ndarray):
        what = f"the array {x.dtype}{x.shape}"
        _check_dtype(x.dtype.name, what)
        if x.ndim not in (2, 3) or 0 in x.shape or (x.ndim == 3 and x.shape[2] not in _ARRAYS):
            raise InputError(f"{what}: arrays must be (H, W) or (H, W, 1|2|3|4) with H, W >= 1")
        native = np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="), copy=False))
        if x.ndim == 2:
            return Exact(native[None], "numpy", x.dtype.name, "L", [])
        planes = np.ascontiguousarray(np.moveaxis(native, 2, 0))
        return Exact(planes, "numpy", x.dtype.name, _ARRAYS[x.shape[2]], [])
    raise InputError(
        f"cannot encode a {type(x).__name__}; hand in a path, a Pillow image, a numpy array or a torch tensor"
    )


def _check_dtype(dtype: str, what: str) -> None:
    if dtype not in _FULL:
        hint = "codec='features' keeps float16 and float32 to the bit" if "float" in dtype else "convert it first"
        raise InputError(f"{what}: lossless pictures are of uint8 or uint16; {hint}")


def _of_pillow(image: Image.Image, metadata: str, name: str) -> Exact:
    bits = deep.depth(image)
    if image.mode not in _MODES or bits > 8 or 0 in image.size:
        if bits > 8 and deep.read(image) is None:
            raise InputError(
                f"{name}: {bits} bits a channel, of which Pillow reads 8: pip install latentzip[deep] to read all of "
                "them, or hand in a uint16 array"
            )
        picture = from_pillow(image, metadata, name)
        if picture.array.dtype.kind == "f":
            _check_dtype("float32", name)
        array = picture.array if picture.array.ndim == 3 else picture.array[..., None]
        planes = np.ascontiguousarray(np.moveaxis(array, 2, 0))
        return Exact(planes, "pil", planes.dtype.name, picture.mode, picture.metadata.boxes())
    if (frames := getattr(image, "n_frames", 1)) > 1:
        converted(f"{name}: only one of {frames} frames is coded")
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"{name}: damaged picture: {error}") from error
    image = upright(image, name)
    boxes = collect(image, metadata).boxes()
    if image.mode == "P":
        kind = "RGBA" if image.palette is not None and image.palette.mode == "RGBA" else "RGB"
        boxes.append(Box(PALETTE, bytes([len(kind)]) + bytes(image.getpalette(kind) or ())))
    key = image.info.get("transparency")
    if key is not None:
        boxes.append(Box(TRNS, _pack_key(key)))
    array = np.asarray(image).astype(np.uint8)
    planes = array[None] if array.ndim == 2 else np.ascontiguousarray(np.moveaxis(array, 2, 0))
    return Exact(planes, "pil", "uint8", image.mode, boxes)


def _pack_key(key: Any) -> bytes:
    """A transparent colour: 0 and numbers of two bytes; or 1 and the alpha of each entry of a palette."""
    if isinstance(key, bytes):
        return b"\1" + key
    numbers = key if isinstance(key, (tuple, list)) else (key,)
    return b"\0" + b"".join(int(n).to_bytes(2, "little") for n in numbers)


def _key(data: bytes) -> Any:
    if data[:1] == b"\1":
        return data[1:]
    numbers = tuple(int.from_bytes(data[i : i + 2], "little") for i in range(1, len(data), 2))
    return numbers[0] if len(numbers) == 1 else numbers


def check_exact(header: Header, boxes: Sequence[Box]) -> None:
    """Raises FormatError when header and boxes contradict each other."""
    mode, data = header.mode, _box(boxes, PALETTE)
    if header.dtype not in _FULL or _CHANNELS.get(mode) != header.shape[0]:
        raise FormatError(
            f"a lossless stream of {header.shape[0]} channels of {header.dtype} cannot be of mode {mode!r}"
        )
    if header.dtype != ("uint16" if mode in ("I;16", "I") else "uint8") and mode not in ("L", *_ARRAYS.values()):
        raise FormatError(f"a lossless stream of {header.dtype} cannot be of mode {mode}")
    if (mode == "P") != (data is not None):
        raise FormatError("the palette of a stream is missing, or there is one without need")
    if data is not None and (
        data[:1] not in (b"\3", b"\4") or len(data) > 1 + 256 * data[0] or (len(data) - 1) % data[0]
    ):
        raise FormatError("the palette of a stream is malformed")


def _box(boxes: Sequence[Box], number: int) -> bytes | None:
    return next((box.data for box in boxes if box.type == number), None)


def from_exact(planes: np.ndarray, header: Header, boxes: Sequence[Box], to: str = "signal") -> Any:
    """Decoded planes (C, H, W) -> what was handed in, or what ``to`` asks for.

    Arrays and tensors made of a Pillow image hold its colours: those of a palette, and 0 and 255 for 1 bit.

    Raises:
        FormatError: header and boxes contradict each other.
    """
    check_exact(header, boxes)
    kind = header.kind if to == "signal" else to
    if kind == "pil":
        return _to_pillow(planes, header, boxes)
    if header.mode in ("1", "P"):
        image = _to_pillow(planes, header, boxes)
        array = np.array(image.convert("L" if header.mode == "1" else "RGBA" if _keyed(image) else "RGB"))
        planes = array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)
    planes = np.ascontiguousarray(planes)
    if kind == "tensor":
        x = torch.from_numpy(planes)
        return x if header.kind == "tensor" else x.to(torch.float32) / _FULL[header.dtype]
    array = np.ascontiguousarray(np.moveaxis(planes, 0, 2))
    flat = array.shape[2] == 1 and header.mode != "L;1"
    return array[..., 0].astype(np.int32 if header.mode == "I" else array.dtype) if flat else array


def _keyed(image: Image.Image) -> bool:
    return image.has_transparency_data


def _to_pillow(planes: np.ndarray, header: Header, boxes: Sequence[Box]) -> Image.Image:
    metadata, mode = Metadata.from_boxes(boxes), header.mode
    if mode in ("I;16", "I") or header.dtype == "uint16" or mode not in _MODES:
        return to_pillow(np.moveaxis(planes, 0, 2), mode, metadata)
    array = np.ascontiguousarray(planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, 2))
    size = (array.shape[1], array.shape[0])
    if mode == "1":
        image = Image.fromarray(array.astype(bool))
    else:
        image = Image.frombytes(mode, size, array.tobytes())
    data = _box(boxes, PALETTE)
    if data is not None:
        image.putpalette(data[1:], "RGB" if data[0] == 3 else "RGBA")
    key = _box(boxes, TRNS)
    if key:
        image.info["transparency"] = _key(key)
    image.info.update(metadata.info())
    return image
