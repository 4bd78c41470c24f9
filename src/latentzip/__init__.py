"""latentzip: neural codecs for images, audio and features.

    import latentzip as lz
    blob = lz.encode("photo.jpg")  # path, PIL image, ndarray or tensor -> bytes
    picture = lz.decode(blob)      # the same kind of signal, size and dtype

Names are loaded on first use: importing this package, inspecting a stream and listing codecs need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

DEFAULT_CODEC = "walloc-rgb-16x"  # what `encode` and `codec-cli encode` use when nothing else is asked for
DEFAULT_SOUND_CODEC = "audio"  # the same for sound

if TYPE_CHECKING:
    from . import data, kv
    from .api import decode, encode
    from .codecs.bottleneck import BottleneckConfig, EntropicBottleneck
    from .codecs.features import FeatureCodec
    from .codecs.kv_cache import KVCacheCodec
    from .codecs.registry import CodecInfo, list_codecs, load_codec
    from .entropy.errors import CodecError, FormatError, InputError, LimitError, UnsupportedError
    from .evaluation import evaluate
    from .files import decode_file, encode_file
    from .info import Info, inspect
    from .warn import ConversionWarning

_HOMES = {
    "api": ("decode", "encode"),
    "codecs.bottleneck": ("BottleneckConfig", "EntropicBottleneck"),
    "codecs.features": ("FeatureCodec",),
    "codecs.kv_cache": ("KVCacheCodec",),
    "codecs.registry": ("CodecInfo", "list_codecs", "load_codec"),
    "entropy.errors": ("CodecError", "FormatError", "InputError", "LimitError", "UnsupportedError"),
    "evaluation": ("evaluate",),
    "files": ("decode_file", "encode_file"),
    "info": ("Info", "inspect"),
    "warn": ("ConversionWarning",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DEFAULT_CODEC",
    "DEFAULT_SOUND_CODEC",
    "BottleneckConfig",
    "CodecError",
    "CodecInfo",
    "ConversionWarning",
    "EntropicBottleneck",
    "FeatureCodec",
    "FormatError",
    "Info",
    "InputError",
    "KVCacheCodec",
    "LimitError",
    "UnsupportedError",
    "__version__",
    "data",
    "decode",
    "decode_file",
    "encode",
    "encode_file",
    "evaluate",
    "inspect",
    "kv",
    "list_codecs",
    "load_codec",
]


def __getattr__(name: str) -> Any:
    if name in ("data", "kv"):
        return import_module(f".{name}", __name__)
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
