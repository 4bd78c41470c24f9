"""The check of a pack under the name by which it has always been imported; it lives in `reading.check`."""

from .reading.check import Report, check_pack

__all__ = ["Report", "check_pack"]
