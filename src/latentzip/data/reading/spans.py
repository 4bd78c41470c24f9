"""Spans of sound that a loader takes of each sample, on the grid of the codec's frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...entropy.errors import InputError
from ..archive import Archive
from ..modality import SOUND
from ..modality.sound import check_seconds, frames_and_samples
from .draw import Draw

PLACES = ("random", "start", "center")


class Spans:
    """Frames (start, stop) of the samples of a batch: of one length, where they have one rate.

    Raises:
        InputError: no pack of sound, or no length.
    """

    def __init__(self, archive: Archive, codec: Any, seconds: float, place: str) -> None:
        if archive.manifest["modality"] != SOUND.name:
            raise InputError(
                f"seconds is for packs of sound; {archive.path} holds {archive.manifest['modality']} signals"
            )
        check_seconds(seconds)
        self._archive, self._seconds, self._place = archive, seconds, place
        rates = np.unique(archive.columns["rate"]).tolist()
        self._frames = {rate: frames_and_samples(codec, rate, seconds)[0] for rate in rates}
        self._tail = getattr(codec, "tail", 0)
        self._cut = archive.manifest.get("signal", {}).get("seconds") is not None

    def __call__(self, numbers: np.ndarray, draw: Draw) -> list[tuple[int, int]]:
        """The spans of samples; raises InputError: one is shorter."""
        columns = self._archive.columns
        # a last frame that a recording does not fill is left out, so that latents and samples of a span agree
        whole = columns["latent_frames"][numbers].astype(np.int64) - self._tail - (not self._cut)
        frames = np.array([self._frames[rate] for rate in columns["rate"][numbers].tolist()], np.int64)
        room = whole - frames
        if len(room) and int(room.min()) < 0:
            key = columns["key"][numbers[int(room.argmin())]]
            raise InputError(
                f"{self._archive.path}: {key} is shorter than {self._seconds:g} s; ask for fewer seconds, or "
                "pack excerpts (--seconds), which are padded"
            )
        start = np.zeros(len(room), np.int64)
        if self._place == "random":
            start = draw.integers(room + 1)
        elif self._place == "center":
            start = room // 2
        return list(zip(start.tolist(), (start + frames).tolist()))
