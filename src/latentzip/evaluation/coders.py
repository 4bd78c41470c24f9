"""From a name to something that encodes and decodes: our codecs, plug-ins, conventional ones, CompressAI's.

``NAME`` or ``NAME@SETTINGS``: ``jpeg``, ``avif@20,50,80``, ``hyperprior-fast@10..90:20``, ``opus@16,32,64`` (kbit/s),
``features@0.1,0.01`` (error over variance), ``compressai:mbt2018-mean@1..6``; ``hyperprior@e7`` or
``hyperprior@30,50,e7`` searches with an effort of 7. A path of a ``.safetensors`` file is a codec of one's own.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from ..api import loaded
from ..codecs.contract import EXACT, LATENT, check_options
from ..codecs.registry import SCHEMES, WEIGHTLESS, is_weights, list_codecs, load_codec
from ..entropy.errors import InputError
from .peers.pictures import CONVENTIONAL, LOSSLESS, Conventional
from .peers.sound import CONVENTIONAL_AUDIO, ConventionalSound
from .peers.tensors import CONVENTIONAL_TENSOR, PlainTensor
from .signals import Signal

QUALITIES = (10, 30, 50, 70, 90)
ERRORS = (1e-1, 1e-2, 1e-3, 1e-4)
_UNITS = {"kbps": "kbit/s", "rates": ": 1"}


@dataclass(frozen=True)
class Setting:
    """One step of a codec's ladder: how it is shown, and the value; None where there is nothing to set."""

    label: str
    value: float | None


class Coder:
    """Encodes and decodes signals of one modality, or of several.

    Attributes:
        name: as it was asked for, without settings.
        modalities: of the signals that it takes.
        kind: "latentzip", "plug-in", "conventional" or "compressai".
        scale: what its settings are: "quality" (1..100), "kbps", "rates", "nmse", "model", or "" for none.
        ladder: the settings used when none are named.
    """

    kind: ClassVar[str] = "conventional"

    def __init__(self, name: str, modality: str | Sequence[str], scale: str, ladder: Sequence[float]) -> None:
        self.name, self.scale, self.ladder = name, scale, tuple(ladder)
        self.modalities = (modality,) if isinstance(modality, str) else tuple(modality)
        self.values: tuple[float, ...] | None = None  # settings named by the user

    @property
    def settings(self) -> list[Setting]:
        """What is measured, in the order of the ladder."""
        values = self.values or self.ladder
        return [Setting(_label(self.scale, v), v) for v in values] or [Setting("", None)]

    @property
    def weights(self) -> str:
        """Hex of what decoding depends on, empty where only the format matters."""
        return ""

    def latent_ratio(self, signal: Signal) -> float | None:
        """Latent values over signal values, None where a codec has no latent."""
        return None

    def frame_seconds(self, signal: Signal) -> float | None:
        """Seconds that a chunk of a coded sound lasts, None where a codec has no chunks in time."""
        return None

    def encode(self, signal: Signal, setting: Setting) -> bytes:
        raise NotImplementedError

    def decode(self, data: bytes, signal: Signal, setting: Setting) -> np.ndarray:
        """An array of the shape of ``signal.data``."""
        raise NotImplementedError


def _label(scale: str, value: float) -> str:
    if scale in ("quality", "model"):
        return f"q{value:g}"
    return f"nmse {value:g}" if scale == "nmse" else f"{value:g}{' ' * (scale == 'kbps')}{_UNITS.get(scale, '')}"


class Picture(Coder):
    """A format of Pillow."""

    def __init__(self, codec: Conventional) -> None:
        scale = "" if not codec.ladder else "rates" if codec.name == "jpeg2000" else "quality"
        super().__init__(codec.name, "image", scale, codec.ladder)
        self.codec = codec

    def encode(self, signal: Signal, setting: Setting) -> bytes:
        return self.codec.encode(Image.fromarray(signal.data), setting.value or 0)

    def decode(self, data: bytes, signal: Signal, setting: Setting) -> np.ndarray:
        return self.codec.decode(data)


class Sound(Coder):
    """A format of libsndfile."""

    def __init__(self, codec: ConventionalSound) -> None:
        super().__init__(codec.name, "audio", codec.scale, codec.ladder)
        self.codec = codec

    def encode(self, signal: Signal, setting: Setting) -> bytes:
        return self.codec.encode(signal.data, signal.rate, setting.value or 0)

    def decode(self, data: bytes, signal: Signal, setting: Setting) -> np.ndarray:
        return self.codec.decode(data, signal.rate, len(signal.data))


class Plain(Coder):
    """A plain way to store a tensor."""

    def __init__(self, codec: PlainTensor) -> None:
        super().__init__(codec.name, "tensor", "", ())
        self.codec = codec

    def encode(self, signal: Signal, setting: Setting) -> bytes:
        return self.codec.encode(signal.data)

    def decode(self, data: bytes, signal: Signal, setting: Setting) -> np.ndarray:
        return self.codec.decode(data, signal.data.shape).astype(signal.data.dtype)


class Ours(Coder):
    """A registered codec of this package or of a plug-in, through `latentzip.encode` and `decode`.

    ``codec`` is a name, a path or a loaded codec; an ``effort`` becomes part of the name: ``hyperprior@e7``. A
    ``label`` stands for the codec's own name.
    """

    kind = "latentzip"

    def __init__(self, codec: Any, device: str = "cpu", effort: int = 0, label: str = "") -> None:
        self.model: Any = loaded(codec, device)
        scale = "quality" if self.model.variable_rate else ""
        self.options = check_options(self.model, {"effort": effort or None})
        name = f"{label or self.model.name}@e{effort}" if effort else label or self.model.name
        super().__init__(name, self.model.modality, scale, QUALITIES if scale else ())
        sources = {i.name: i.source for i in list_codecs()}
        if sources.get(self.model.name, "") != "latentzip":
            self.kind = "plug-in"  # type: ignore[misc]

    @cached_property
    def weights(self) -> str:  # type: ignore[override]
        return self.model.fingerprint.hex()

    def latent_ratio(self, signal: Signal) -> float | None:
        m = self.model
        if LATENT not in m.capabilities or EXACT in m.capabilities:
            return None
        if signal.modality == "image":
            return m.latent_channels / (m.signal_channels * m.stride**2)
        if signal.modality != "audio":
            return None
        from ..codecs import audio_base

        channels, inner = signal.data.shape[1], m.coding_rate(signal.rate)
        rows = sum(m.rows(audio_base.Setting(inner, n, 50)) for n in audio_base.groups_of(channels))
        return rows / m.hop(inner) * (inner / signal.rate) / channels

    def frame_seconds(self, signal: Signal) -> float | None:
        if signal.modality != "audio" or EXACT in self.model.capabilities:
            return None
        inner = self.model.coding_rate(signal.rate)
        return self.model.chunk * self.model.hop(inner) / inner

    def encode(self, signal: Signal, setting: Setting) -> bytes:
        from ..api import encode

        return encode(signal.source, codec=self.model, quality=setting.value, **self.options)

    def decode(self, data: bytes, signal: Signal, setting: Setting) -> np.ndarray:
        from ..api import decode

        found = decode(data, to="numpy", codec=self.model)
        return np.asarray(found[0] if isinstance(found, tuple) else found)


class Features(Coder):
    """The `features` codec, to an error given as a part of the variance; ``codec`` may be a profile's."""

    kind = "latentzip"

    def __init__(self, codec: Any = None) -> None:
        super().__init__("features", "tensor", "nmse", ERRORS)
        if codec is None:
            from ..codecs.features.codec import FeatureCodec

            codec = FeatureCodec()
        self.codec = codec

    def encode(self, signal: Signal, setting: Setting) -> bytes:
        return self.codec.encode(signal.data, nmse=setting.value)

    def decode(self, data: bytes, signal: Signal, setting: Setting) -> np.ndarray:
        return np.asarray(self.codec.decode(data))


class CompressAI(Coder):
    """A picture model of CompressAI in our container; settings are qualities of its zoo, or weights of one's own.

    Without ``weights`` the zoo fetches its checkpoints, which needs a network. ``effort`` as in `Ours`.
    """

    kind = "compressai"

    def __init__(self, name: str, weights: Any = None, device: str = "cpu", effort: int = 0) -> None:
        shown = f"{name}@e{effort}" if effort else name
        super().__init__(shown, "image", "" if weights else "model", () if weights else range(1, 9))
        self.model, self.checkpoint, self.device, self.effort = name, weights, device, effort
        self._loaded: tuple[Setting, Any] | None = None

    def _model(self, setting: Setting) -> Any:
        if self._loaded is None or self._loaded[0] != setting:
            source: Any = self.checkpoint
            if source is None:
                from compressai import zoo

                model = self.model.partition(":")[2]
                if model not in zoo.models:
                    raise InputError(f"CompressAI has no model {model!r}; known: {', '.join(sorted(zoo.models))}")
                try:
                    source = zoo.models[model](quality=int(setting.value or 1), pretrained=True)
                except OSError as error:
                    raise InputError(
                        f"the weights of {self.model} {setting.label} cannot be fetched ({error}); "
                        f"give a checkpoint with --weights {self.model}=PATH"
                    ) from error
            self._loaded = setting, load_codec(self.model, self.device, weights=source)
        return self._loaded[1]

    @property
    def weights(self) -> str:
        return self._model(Setting("", None)).fingerprint.hex() if self.checkpoint else ""

    def encode(self, signal: Signal, setting: Setting) -> bytes:
        from ..api import encode

        return encode(signal.data, codec=self._model(setting), effort=self.effort or None)

    def decode(self, data: bytes, signal: Signal, setting: Setting) -> np.ndarray:
        from ..api import decode

        return np.asarray(decode(data, to="numpy", codec=self._model(setting)))


def parse_settings(text: str) -> tuple[float, ...]:
    """``"10,50,90"``, ``"1..100:10"`` (from 1 in steps of 10) or a mixture; ascending order is not asked for.

    Raises:
        InputError: anything else.
    """
    values: list[float] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([-\d.e]+?)(?:\.\.([\d.]+)(?::([\d.]+))?)?\s*", part)
        try:
            if match is None:
                raise ValueError
            first = float(match[1])
            if match[2] is None:
                values.append(first)
                continue
            last, step = float(match[2]), float(match[3] or 1)
            if step <= 0 or last < first or (last - first) / step > 1000:
                raise ValueError
            values += [first + i * step for i in range(int((last - first) / step + 1e-9) + 1)]
        except ValueError:
            raise InputError(f"settings {text!r}: write numbers like 10,50,90 or a range like 1..100:10") from None
    return tuple(dict.fromkeys(values))


def split_effort(settings: str) -> tuple[str, int]:
    """``"30,50,e7"`` -> (``"30,50"``, 7): an effort among the settings, 0 without one.

    Raises:
        InputError: several efforts.
    """
    parts = [part.strip() for part in settings.split(",") if part.strip()]
    found = [part for part in parts if re.fullmatch(r"e\d+", part)]
    if len(found) > 1:
        raise InputError(f"settings {settings!r} name several efforts: measure them as codecs of their own")
    return ",".join(p for p in parts if p not in found), int(found[0][1:]) if found else 0


def known() -> list[str]:
    """Names that `coder` takes, ours first."""
    ours = [info.name for info in list_codecs()]
    return [*ours, *CONVENTIONAL, *LOSSLESS, *CONVENTIONAL_AUDIO, *CONVENTIONAL_TENSOR]


def check_name(name: str) -> None:
    """Raises InputError with the nearest name that exists when nothing is called ``name``."""
    if not (name in known() or name.partition(":")[0] in SCHEMES or is_weights(name)):
        near = difflib.get_close_matches(name, known(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known())}"
        raise InputError(f"unknown codec {name!r}; {hint}")


def coder(
    spec: Any, quality: Sequence[float] | None = None, weights: Mapping[str, Any] | None = None, device: str = "cpu"
) -> Coder:
    """A coder by name, ``NAME@SETTINGS``, or of a loaded codec.

    Args:
        quality: settings for codecs whose scale is a quality of 1 to 100, unless the name brings its own.
        weights: checkpoints of CompressAI's models, by name.

    Raises:
        InputError: an unknown name, or settings that the codec does not have.
    """
    if isinstance(spec, Coder):
        return spec
    spec = os.fspath(spec) if isinstance(spec, os.PathLike) else spec
    if not isinstance(spec, str):
        made: Coder = Features(spec) if getattr(spec, "modality", "") == "tensor" else Ours(spec, device)
        return _with_settings(made, None, quality)
    name, _, settings = spec.partition("@")
    settings, effort = split_effort(settings)
    if name in CONVENTIONAL or name in LOSSLESS:
        made = Picture((CONVENTIONAL | LOSSLESS)[name])
    elif name in CONVENTIONAL_AUDIO:
        made = Sound(CONVENTIONAL_AUDIO[name])
    elif name in CONVENTIONAL_TENSOR:
        made = Plain(CONVENTIONAL_TENSOR[name])
    elif name.partition(":")[0] in SCHEMES:
        made = CompressAI(name, (weights or {}).get(name), device, effort)
    elif name in WEIGHTLESS and WEIGHTLESS[name].modality == "tensor":
        made = Features()
    else:
        check_name(name)
        made = Ours(name, device, effort, label=Path(name).stem if is_weights(name) else "")
    if effort and not isinstance(made, Ours | CompressAI):
        raise InputError(f"{name} has no effort: leave out e{effort}")
    return _with_settings(made, parse_settings(settings) if settings else None, quality)


def _with_settings(made: Coder, own: Sequence[float] | None, quality: Sequence[float] | None) -> Coder:
    if own and not made.scale:
        raise InputError(f"{made.name} has nothing to set: leave out @{','.join(f'{v:g}' for v in own)}")
    chosen = own or (quality if made.scale == "quality" else None)
    if chosen:
        if made.scale in ("quality", "model") and not all(1 <= v <= 100 and v == int(v) for v in chosen):
            raise InputError(f"{made.name}: qualities are integers from 1 to 100, not {tuple(chosen)}")
        made.values = tuple(chosen)
    return made


def default_codecs(modalities: Collection[str]) -> list[str]:
    """What is measured when nothing is asked for: ours and the conventional ones of these modalities."""
    others = {"image": ["jpeg", "webp", "avif"], "audio": ["opus", "mp3"], "tensor": [*CONVENTIONAL_TENSOR]}
    return [*own_codecs(modalities), *(name for m in sorted(modalities) for name in others[m])]


def own_codecs(modalities: Collection[str]) -> list[str]:
    """Bundled codecs that code any signal of these modalities, and need no minutes for one."""
    # a codec of tensors that has weights is made for one network's activations; one that loses nothing has no curve
    return [
        i.name
        for i in list_codecs()
        if any(map(i.codes, modalities)) and not i.slow and (i.modality == "tensor") == (i.name in WEIGHTLESS)
    ]
