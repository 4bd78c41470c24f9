"""latentzip: neural codecs for images, audio and features.

    import latentzip as lz
    blob = lz.encode("photo.jpg")  # path, PIL image, ndarray or tensor -> bytes
    picture = lz.decode(blob)      # the same kind of signal, size and dtype

Names are loaded on first use: importing this package, inspecting a stream and listing codecs need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .defaults import DEFAULT_CODEC, DEFAULT_PACK_CODEC, DEFAULT_SOUND_CODEC
from .entropy.lazy import exports
from .version import __version__

if TYPE_CHECKING:
    from . import data, kv
    from .api import decode, encode
    from .codecs.bottleneck.codec import BottleneckConfig, EntropicBottleneck
    from .codecs.features.codec import FeatureCodec
    from .codecs.kv.cache import KVCacheCodec
    from .codecs.registry import CodecInfo, list_codecs, load_codec
    from .entropy.errors import CodecError, FormatError, InputError, LimitError, UnsupportedError
    from .evaluation import evaluate
    from .files import decode_file, encode_file
    from .info import Info, inspect
    from .warn import ConversionWarning

_HOMES = {
    "api": ("decode", "encode"),
    "codecs.bottleneck.codec": ("BottleneckConfig", "EntropicBottleneck"),
    "codecs.features.codec": ("FeatureCodec",),
    "codecs.kv.cache": ("KVCacheCodec",),
    "codecs.registry": ("CodecInfo", "list_codecs", "load_codec"),
    "entropy.errors": ("CodecError", "FormatError", "InputError", "LimitError", "UnsupportedError"),
    "evaluation": ("evaluate",),
    "files": ("decode_file", "encode_file"),
    "info": ("Info", "inspect"),
    "warn": ("ConversionWarning",),
}


__all__ = [
    "DEFAULT_CODEC",
    "DEFAULT_PACK_CODEC",
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

__getattr__, __dir__ = exports(__name__, _HOMES, ("data", "kv"))
