"""The kinds of signal that packs hold, a module each; `base.Modality` says what one has."""

from __future__ import annotations

from typing import Any

from ...codecs.contract import modalities
from ...entropy.errors import UnsupportedError
from .base import Modality
from .pictures import PICTURES
from .sound import SOUND
from .tensors import TENSORS

MODALITIES: dict[str, Modality] = {m.name: m for m in (PICTURES, SOUND, TENSORS)}


def of_codec(codec: Any) -> list[Modality]:
    """Those that a codec takes, its first one first.

    Raises:
        UnsupportedError: none that can be packed.
    """
    found = [MODALITIES[name] for name in modalities(codec) if name in MODALITIES]
    if not found:
        raise UnsupportedError(
            f"{codec.name} codes {' and '.join(modalities(codec))} signals, which cannot be packed (codec-cli list)"
        )
    return found
