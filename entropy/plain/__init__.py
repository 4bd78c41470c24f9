"""The loops of coding in NumPy and Python: the definition of those in `compiled`, and what runs without numba."""
