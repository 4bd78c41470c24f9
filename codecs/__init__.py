"""Codecs: one room a family, a small base class, a registry with entry points."""

if __name__ == "codecs":  # the repository root is on sys.path and this folder shadows the standard library
    raise ImportError("the latentzip repository root is on PYTHONPATH; remove it and import latentzip.codecs")
