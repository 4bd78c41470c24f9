"""Entropy models -> integer tables -> coder -> container.

Names are loaded on first use, so importing this package costs next to nothing and never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import exports

if TYPE_CHECKING:
    from .banks import frozen_bank, scales
    from .batch import decode_batch, encode_batch, run_batch
    from .coder import Decoder, Encoder, RateMeter
    from .context.model import ContextModel
    from .contract import Coder, Model
    from .engine import current_engine
    from .errors import CodecError, FormatError, InputError, LimitError, MoreDataNeeded, UnsupportedError
    from .models import (
        Factorized,
        Gaussian,
        Laplace,
        Mixture,
        TableModel,
        Uniform,
        float_bits,
        scale_index,
    )
    from .priors import FactorizedPrior
    from .stream import StreamDecoder, StreamEncoder
    from .tables import TableBank
    from .warming import warm

_HOMES = {
    "banks": ("frozen_bank", "scales"),
    "batch": ("decode_batch", "encode_batch", "run_batch"),
    "coder": ("Decoder", "Encoder", "RateMeter"),
    "context.model": ("ContextModel",),
    "contract": ("Coder", "Model"),
    "engine": ("current_engine",),
    "errors": ("CodecError", "FormatError", "InputError", "LimitError", "MoreDataNeeded", "UnsupportedError"),
    "models": (
        "Factorized",
        "Gaussian",
        "Laplace",
        "Mixture",
        "TableModel",
        "Uniform",
        "float_bits",
        "scale_index",
    ),
    "priors": ("FactorizedPrior",),
    "stream": ("StreamDecoder", "StreamEncoder"),
    "tables": ("TableBank",),
    "warming": ("warm",),
}


__all__ = [
    "CodecError",
    "Coder",
    "ContextModel",
    "Decoder",
    "Encoder",
    "Factorized",
    "FactorizedPrior",
    "FormatError",
    "Gaussian",
    "InputError",
    "Laplace",
    "LimitError",
    "Mixture",
    "Model",
    "MoreDataNeeded",
    "RateMeter",
    "StreamDecoder",
    "StreamEncoder",
    "TableBank",
    "TableModel",
    "Uniform",
    "UnsupportedError",
    "current_engine",
    "decode_batch",
    "encode_batch",
    "float_bits",
    "frozen_bank",
    "run_batch",
    "scale_index",
    "scales",
    "warm",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
