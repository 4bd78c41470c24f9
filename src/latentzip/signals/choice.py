"""Which kind a signal is of: the only place where that is decided."""

from __future__ import annotations

import os
from typing import Any

from ..codecs.contract import AnyCodec, modalities
from ..entropy.errors import InputError
from . import KINDS, words
from .kind import Kind
from .pictures import PICTURES


def is_file(x: Any) -> bool:
    """Whether ``x`` is a path or an open file."""
    return isinstance(x, (str, os.PathLike)) or hasattr(x, "read")


def kind_of(x: Any) -> Kind:
    """The kind of an object, a path or an open file: pictures where nothing says otherwise."""
    return next((kind for kind in KINDS.values() if kind.coding.holds(x)), PICTURES)


def kind_for(x: Any, codec: AnyCodec) -> Kind:
    """The kind as which a codec takes ``x``; of a file that of the codec, where it has only one.

    Raises:
        InputError: ``x`` is for certain of a kind that the codec does not take.
    """
    own = [KINDS[name] for name in modalities(codec) if name in KINDS]
    if not own:
        raise InputError(f"{codec.name} codes {' and '.join(modalities(codec))} signals, which are not known here")
    if len(own) == 1 and is_file(x):
        return own[0]
    found = kind_of(x)
    if found in own:
        return found
    if found.coding.holds(x) and not is_file(x):
        other = f"choose an {found.name} codec (codec-cli list)"
        raise InputError(f"{codec.name} codes {words(codec.modality)}, not {found.noun}: {other}")
    return own[0]
