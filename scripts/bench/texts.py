"""Texts that Python and torch bring, for models of language."""

from __future__ import annotations

import inspect
from importlib import import_module

import torch

LENGTH = 256  # tokens of a sequence


def texts() -> tuple[str, str, str]:
    """Python's help topics in two parts, and torch's docstrings."""
    topics = import_module("pydoc_data.topics").topics
    names = sorted(topics)
    fit = "\n".join(topics[n] for i, n in enumerate(names) if i % 4)
    held_out = "\n".join(topics[n] for i, n in enumerate(names) if i % 4 == 0)
    public = [getattr(torch, n) for n in sorted(dir(torch)) if not n.startswith("_")]
    return fit, held_out, "\n".join(inspect.getdoc(f) or "" for f in public if callable(f))
