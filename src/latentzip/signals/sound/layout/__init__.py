"""What a sound file says of its length against what it holds, before libsndfile reads it.

libsndfile takes a wrong or missing length as it is, and the first of several streams for all: a cut download, a
recording whose program crashed, two songs end to end. `examine` finds what is there and says what is not.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from . import chunks, mpeg, ogg
from .view import Layout, Window


def examine(file: BinaryIO) -> Layout:
    """The parts of an open, seekable file that are to be read one after the other, and what has to be said."""
    size = file.seek(0, os.SEEK_END)
    window = Window(file, size)
    head = window.get(0, 12)
    if head[:4] == b"OggS":
        layout = ogg.examine(window)
    elif head[:4] in chunks.MAGIC:
        layout = chunks.examine(window)
    elif mpeg.begins(window):
        layout = mpeg.examine(window)
    else:
        layout = Layout([[(0, size)]])
    file.seek(0)
    return layout
