"""Kinds of signal, a room each: what users hand in becomes what codecs take, and comes back as the same kind.

`kind.Kind` and `coding.Coding` say what a room has; a new kind is a room and a line here.
"""

from __future__ import annotations

from ..entropy.container import Header
from .kind import Kind
from .pictures import PICTURES
from .sound import SOUND
from .tensors import TENSORS

KINDS: dict[str, Kind] = {kind.name: kind for kind in (PICTURES, SOUND, TENSORS)}


def of(header: Header) -> Kind:
    """The kind of a stream."""
    return KINDS[header.modality]


def words(modality: str | tuple[str, ...]) -> str:
    """Modalities for people: ``"pictures and sound"``."""
    return " and ".join(KINDS[name].noun for name in ((modality,) if isinstance(modality, str) else modality))
