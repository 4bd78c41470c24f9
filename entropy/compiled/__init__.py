"""The loops of coding, compiled by numba. `plain` holds the same loops in NumPy and Python: their definition."""
