"""Numeric kernels: one function each, with a reference body, a fast CPU body and a CUDA body."""

import os

# where colorama is installed, numba colours its errors, those it catches itself too, by swapping sys.stderr: out of a
# thread that compiles in the background this turns away what others print. An empty value brings the colours back.
os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")
