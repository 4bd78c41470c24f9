"""The codec that a stream asks for."""

from __future__ import annotations

from typing import Any

from ..codecs.contract import AnyCodec, modalities, quality_in
from ..codecs.precision import AnyPrecision, Precision, multiplies_bfloat16
from ..codecs.registry import family_of, load_codec
from ..entropy.container import Header
from ..entropy.errors import FormatError, InputError, UnsupportedError
from .coding import Wanted


def model_for(header: Header, wanted: Wanted) -> Any:
    """The codec that decodes a stream: the one that was handed in, or the one of the stream's name.

    Raises:
        UnsupportedError: it is not installed, or another one made the stream.
        FormatError: the stream claims a signal that its codec does not code.
    """
    codec = wanted.codec
    if codec is not None and header.modality not in modalities(codec):
        raise UnsupportedError(f"the stream was made by {header.codec}; {codec.name} cannot decode it")
    model: Any = codec or codec_of(header, wanted.device, wanted.precision)
    check_model(header, model)
    return model


def codec_of(header: Header, device: str = "cpu", precision: AnyPrecision = "fp32") -> Any:
    """The codec that a stream names; UnsupportedError when it is not installed."""
    try:
        return load_codec(
            header.codec, device, fingerprint=header.fingerprint,
            precision=_precision(precision, header.codec, quality_in(header.params), device),
        )  # fmt: skip
    except InputError as error:
        raise UnsupportedError(
            f"the stream was made by codec {header.codec!r}, which is not installed here ({error})"
        ) from error


def _precision(asked: AnyPrecision, name: str, quality: int | None, device: str) -> Precision:
    """What "auto" means for a stream of a codec: bfloat16 where it is faster and costs less than .01 dB.

    Up to which quality it costs so little is written in the codec's family; plug-ins stay in float32. A stream without
    a quality counts as one of the best.
    """
    if asked != "auto":
        return asked
    family = family_of(name)
    near = family is not None and (quality or 100) <= family.bfloat16
    return "bf16" if near and multiplies_bfloat16(device) else "fp32"


def check_model(header: Header, model: AnyCodec) -> None:
    """Raises when a stream was made by another codec, or says so."""
    if (header.codec, header.fingerprint) != (model.name, model.fingerprint):
        raise UnsupportedError(
            f"the stream needs {header.codec} ({header.fingerprint.hex()}), "
            f"not {model.name} ({model.fingerprint.hex()})"
        )
    if header.modality not in modalities(model):
        raise FormatError(
            f"{model.name} codes {' and '.join(modalities(model))} signals, the stream claims {header.modality}"
        )
