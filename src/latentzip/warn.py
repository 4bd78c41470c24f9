"""The one category of warnings: what is coded differs from what was handed in (docs/inputs.md lists every case)."""

from __future__ import annotations

import warnings


class ConversionWarning(UserWarning):
    """An input was converted before coding: palette to RGB, CMYK to sRGB, only the first frame, ..."""


def converted(text: str) -> None:
    """Warn that an input was converted."""
    warnings.warn(text, ConversionWarning, stacklevel=2)
