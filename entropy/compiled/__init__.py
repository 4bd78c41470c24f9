"""The loops of coding, compiled by numba. `plain` holds the same loops in NumPy and Python: their definition."""

from ... import kernels as kernels  # how numba is set, before anything here loads it
