"""codec-cli: one module a command, imported when it is called."""

from .app import main

__all__ = ["main"]
