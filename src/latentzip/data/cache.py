"""The training tier under the name by which it has always been imported; it lives in `reading.cache`."""

from .reading.cache import Cache, build_cache, find_cache

__all__ = ["Cache", "build_cache", "find_cache"]
