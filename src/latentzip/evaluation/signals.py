"""Inputs of an evaluation: what is compared with what decodes, read once and the same for every codec."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..entropy.dense import array_of, dense
from ..entropy.errors import InputError
from ..signals import KINDS
from ..signals.pictures import PICTURES
from ..signals.sound import SOUND

SUFFIXES = PICTURES.suffixes | SOUND.suffixes
RATE_OF = {name: kind.rate for name, kind in KINDS.items()}  # the rate of a modality, as rows call it
RATE_LABEL = {name: kind.rate_label for name, kind in KINDS.items()}
SPEED_UNIT = {name: kind.speed_unit for name, kind in KINDS.items()}


@dataclass(frozen=True)
class Signal:
    """One input.

    Attributes:
        name: as it is shown.
        modality: "image", "audio" or "tensor".
        data: (H, W, 3) uint8; (T, C) float32, full scale at 1; or a float array of any shape.
        rate: of audio, in Hz.
    """

    name: str
    modality: str
    data: np.ndarray
    rate: int = 0

    def __post_init__(self) -> None:
        if self.modality not in RATE_OF:
            raise InputError(f"{self.name}: modality is {self.modality!r}; one of {', '.join(RATE_OF)}")
        if self.modality == "audio" and (self.rate < 1 or self.data.ndim != 2):
            raise InputError(
                f"{self.name}: a sound is (T, C) float32 with a rate in Hz; got {self.data.shape}, {self.rate}"
            )

    @cached_property
    def digest(self) -> str:
        """Names the content: 16 hex digits of a BLAKE2 over samples, shape and rate."""
        h = hashlib.blake2b(f"{self.modality} {self.data.dtype} {self.data.shape} {self.rate}".encode(), digest_size=8)
        h.update(np.ascontiguousarray(self.data).data)
        return h.hexdigest()

    @property
    def units(self) -> float:
        """What the rate divides the bits by: pixels, milliseconds (so that bits become kbit/s), or values."""
        return KINDS[self.modality].units(self.data.shape, self.rate)

    def throughput(self, seconds: float) -> float:
        """MP/s of a picture, times real time of a sound, MB/s of a tensor."""
        return KINDS[self.modality].amount(self.units, self.data.nbytes) / max(seconds, 1e-9)

    @property
    def source(self) -> Any:
        """What `latentzip.encode` takes: the array, or the pair of samples and rate."""
        return (self.data, self.rate) if self.rate else self.data


def load(source: Any, name: str | None = None) -> Signal:
    """A path, Pillow image, array (H, W, 3) uint8, pair (samples (T, C) float, rate) or `Signal` as a `Signal`.

    Pictures are measured as 8-bit RGB: deeper ones are rounded, alpha is left out, grey is repeated.

    Raises:
        InputError: not a signal that can be read; the text names it.
        UnsupportedError: reading needs a package that is missing.
        OSError: the file cannot be read.
    """
    if isinstance(source, Signal):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        name = name or path.name
        if path.suffix.lower() in SOUND.suffixes:
            return _sound(path, name)
        from ..signals.pictures.files import open_picture

        return load(open_picture(path), name)
    source = dense(source, name or "the signal")
    if isinstance(source, tuple) and len(source) == 2:
        samples, rate = array_of(source[0], "f", name or "a sound").astype(np.float32), int(source[1])
        samples = samples[:, None] if samples.ndim == 1 else samples
        if samples.ndim != 2 or rate < 1 or samples.shape[0] < 1:
            raise InputError(f"{name or 'a pair'}: sounds are (samples (T,) or (T, C), rate in Hz), T >= 1")
        return Signal(name or "sound", "audio", samples, rate)
    if isinstance(source, Image.Image):
        return _picture(source, name or "picture")
    if isinstance(source, np.ndarray) and 0 not in source.shape:
        if source.dtype == np.uint8 and source.ndim in (2, 3) and (source.ndim == 2 or source.shape[2] in (1, 3, 4)):
            return _picture(Image.fromarray(source.squeeze(2) if source.shape[2:] == (1,) else source), name or "array")
        if source.dtype.kind == "f" and source.size:
            native = source.astype(source.dtype.newbyteorder("="), copy=False)
            return Signal(name or "tensor", "tensor", np.ascontiguousarray(native).reshape(native.shape))
    what = f"{source.dtype}{source.shape}" if isinstance(source, np.ndarray) else type(source).__name__
    raise InputError(f"{name or what}: not a picture, a sound or a float array ({what})")


def _picture(image: Image.Image, name: str) -> Signal:
    from ..signals.pictures.files import from_pillow

    array = from_pillow(image, "none", name).array
    if array.dtype == np.uint16:
        array = np.round(array / 257)
    elif array.dtype != np.uint8:
        array = np.round(array * 255)
    array = array.astype(np.uint8)
    if array.ndim == 2 or array.shape[2] < 3:
        array = np.repeat(array.reshape(*array.shape[:2], -1)[..., :1], 3, axis=2)
    return Signal(name, "image", np.ascontiguousarray(array[..., :3]))


def _sound(path: Path, name: str) -> Signal:
    from ..signals.sound.files import blocks, check_length, open_sound

    with open_sound(path, name) as sound:
        parts = [part.numpy() for part in blocks(sound, name)] or [np.zeros((sound.channels, 0), np.float32)]
        samples, rate = np.ascontiguousarray(np.concatenate(parts, 1).T), sound.samplerate
        check_length(sound, len(samples), name)
    if not len(samples):
        raise InputError(f"{name}: the sound is empty")
    return Signal(name, "audio", samples, rate)


def find(inputs: Iterable[Any]) -> list[Any]:
    """Inputs with folders replaced by the files in them (and in folders in them) that can be measured.

    Raises:
        InputError: a folder without any, or no input at all.
    """
    found: list[Any] = []
    for item in inputs:
        if isinstance(item, (str, os.PathLike)) and Path(item).is_dir():
            files = sorted(p for p in Path(item).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not files:
                raise InputError(f"{item}: no pictures, sounds or .npy files in this folder")
            found += files
        else:
            found.append(item)
    if not found:
        raise InputError("there is no input to measure")
    return found
