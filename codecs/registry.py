"""Which codecs exist, as plain data: nothing here imports torch, so that listing and inspecting stay cheap.

Bundled codecs are read from the index of `latentzip.pretrained`. Other distributions add theirs through the entry
point group ``latentzip.codecs``: the entry's name is the codec's name, its value ``package.module:factory``, and
``factory(name)`` returns a `Codec` (see docs/plugins.md).
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import pretrained
from ..entropy.errors import CodecError, FormatError, InputError, UnsupportedError
from .precision import Precision, check_precision

if TYPE_CHECKING:
    from .base import Codec
    from .contract import Option

GROUP = "latentzip.codecs"


@dataclass(frozen=True)
class Family:
    """One room of `codecs`.

    Attributes:
        name: what weights files name it; of a family without weights the name of its codec.
        modality: ``"image"``, ``"audio"`` or ``"tensor"``, or several of them.
        module: whose ``from_bytes`` reads a weights file, and whose ``load_bundled`` a release; where ``make`` is
            given, none is needed.
        options: ``"module:NAME"`` of what `latentzip.encode` takes for it; the module needs no torch.
        make: ``"module:function"`` that makes the codec where it needs no weights; ``function()`` returns it.
        summary: what it is good for; of bundled weights the index says that.
        slow: encoding takes minutes: comparisons leave it out unless it is named.
        bfloat16: highest quality at which decoding in bfloat16 costs less than .01 dB on Kodak; 0: at none.
    """

    name: str
    modality: str | tuple[str, ...]
    module: str
    options: str
    make: str = ""
    summary: str = ""
    slow: bool = False
    bfloat16: int = 0


# a new family is a room and a line here
FAMILIES = {
    family.name: family
    for family in (
        Family("walloc", "image", ".walloc.codec", ".walloc.options:OPTIONS", bfloat16=100),
        Family("walloc_audio", "audio", ".walloc.audio", ".walloc.options:SOUND"),
        Family("hyperprior", "image", ".hyperprior.codec", ".hyperprior.options:OPTIONS", bfloat16=50),
        Family("overfit", "image", ".overfit.codec", ".overfit.options:OPTIONS", slow=True),
        Family("vq", "image", ".vq.codec", ".vq.options:OPTIONS", bfloat16=100),
        Family("vq_audio", "audio", ".vq.audio", ".vq.options:OPTIONS"),
        Family("audio", "audio", ".audio.codec", ".audio.options:OPTIONS"),
        Family("bottleneck", "tensor", ".bottleneck.codec", ".bottleneck.options:OPTIONS"),
        Family(
            "features", "tensor", ".features.codec", ".features.options:OPTIONS", ".features.codec:FeatureCodec",
            "activations, keys and values, embeddings: any float tensor, to a known error or rate, or lossless",
        ),
        Family(
            "lossless", ("image", "audio"), ".lossless.codec", ".lossless.options:OPTIONS",
            ".lossless.codec:LosslessCodec",
            "pictures of 8 and 16 bits, sound of 8 to 32 bits and of floats, to the last bit",
        ),
    )
}  # fmt: skip
# codecs that need no weights: name -> family
WEIGHTLESS = {name: family for name, family in FAMILIES.items() if family.make}
# foreign models that come with weights of their own: the name's part before the colon -> loader
SCHEMES = {"compressai": ".compressai.bridge:load"}
WEIGHTS_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class CodecInfo:
    """One line of `list_codecs`.

    Attributes:
        name: what `encode(codec=...)` and `load_codec` take.
        modality: ``"image"``, ``"audio"`` or ``"tensor"``, or several, such as ``"image, audio"``; empty for
            plug-ins, which say so once loaded.
        summary: what it is good for.
        fixed_rate: True when `quality` is refused.
        results: measured figures from the model card, such as ``{"kodak_bpp": ..., "kodak_psnr": ...}``.
        source: ``"latentzip"`` or the distribution that provides it.
    """

    name: str
    modality: str = ""
    summary: str = ""
    fixed_rate: bool = True
    results: dict[str, Any] = field(default_factory=dict)
    source: str = "latentzip"

    @property
    def slow(self) -> bool:
        """Whether encoding takes minutes, so that comparisons leave it out unless it is named."""
        family = family_of(self.name) if self.source == "latentzip" else None
        return family is not None and family.slow

    def codes(self, modality: str) -> bool:
        """Whether it takes signals of a kind."""
        return modality in self.modality.split(", ")


plugin_problems: list[str] = []  # what is wrong with installed plug-ins, a line each; `codec-cli list` shows them


@lru_cache(maxsize=1)
def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    bundled = {*WEIGHTLESS, *(entry.name for entry in pretrained.index())}
    plugin_problems.clear()
    try:
        points = sorted(entry_points(group=GROUP), key=lambda p: (p.name, _owner(p), p.value))
    except Exception as error:  # a distribution's metadata may be anything
        plugin_problems.append(f"plug-ins of other distributions cannot be listed: {type(error).__name__}: {error}")
        return found
    for point in points:
        if point.name in bundled or point.name in found:
            plugin_problems.append(
                f"codec name {point.name!r} of distribution {_owner(point)} is taken, the codec is left out; rename "
                "its entry point"
            )
        else:
            found[point.name] = point
    return found


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "?"


def list_codecs() -> list[CodecInfo]:
    """All codecs that can be loaded, bundled ones first."""
    infos = [CodecInfo(e.name, e.modality, e.summary, e.fixed_rate, e.results) for e in pretrained.index() if e.current]
    for name, family in WEIGHTLESS.items():
        infos.append(CodecInfo(name, _text(family.modality), family.summary, "quality" not in _names(family)))
    for name, point in sorted(_plugins().items()):
        infos.append(CodecInfo(name, source=_owner(point)))
    return infos


def _text(modality: str | tuple[str, ...]) -> str:
    return modality if isinstance(modality, str) else ", ".join(modality)


def _names(family: Family) -> list[str]:
    return [option.name for option in options_of_family(family)]


def options_of_family(family: Family) -> tuple[Option, ...]:
    """What a family declares."""
    module, _, name = family.options.partition(":")
    return tuple(getattr(import_module(module, __package__), name))


def family_of(name: str) -> Family | None:
    """The family of a codec's name; None for plug-ins, which say their options once loaded."""
    if name in WEIGHTLESS:
        return WEIGHTLESS[name]
    entry = next((e for e in pretrained.index() if e.name == name), None)
    if entry is None:
        return None
    loader = entry.loader.partition(":")[0].removeprefix(__package__ or "")
    return next((f for f in FAMILIES.values() if loader in (f.module, f.module.removesuffix(".codec"))), None)


def options_of(name: str) -> tuple[Option, ...] | None:
    """The options of the codec of this name, without loading it; None where only loading it tells."""
    family = family_of(name)
    if family is None:
        return None
    info = next((i for i in list_codecs() if i.name == name), None)
    fixed = info is not None and info.fixed_rate
    return tuple(o for o in options_of_family(family) if not (fixed and o.needs == "variable_rate"))


def owners(option: str) -> str:
    """Which codecs have an option that few have, in words that fit before "this"; empty for one that many have.

    Example:
        >>> owners("max_error")
        "codec='features' and its profiles take"
    """
    families = [f for f in FAMILIES.values() if option in _names(f)]
    alone = [f"codec={f.name!r}" + " and its profiles" * (f.name == "features") for f in families if f.make]
    bundled = {e.name: family_of(e.name) for e in pretrained.index() if e.current}
    others = [name for name, family in bundled.items() if family in families]
    names = [*alone, *others]
    if len(families) > 2:
        return ""
    return f"{', '.join(names)} take{'s' * (len(names) == 1 and not alone)}" if names else ""


def check_name(name: str) -> None:
    """Raises InputError with the nearest existing name when no codec is called ``name``."""
    if name.partition(":")[0] in SCHEMES:
        raise InputError(f"{name} has no weights here: load_codec({name!r}, weights=PATH) makes a codec of them")
    names = [info.name for info in list_codecs()]
    if name not in names and (os.sep in name or "/" in name):
        raise InputError(f"unknown codec {name!r}; weights are named by a {WEIGHTS_SUFFIX} file (unpack a .gz first)")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        raise InputError(f"unknown codec {name!r}; {hint} (codec-cli list)")


@lru_cache(maxsize=8)
def _load(name: str, fingerprint: bytes | None, device: str, precision: Precision) -> Codec:
    if name in _plugins():
        point = _plugins()[name]
        try:
            codec = _ready(point.load()(name), device, precision)
            own = codec.fingerprint.hex()
        except (Exception, SystemExit) as error:  # it may do anything, and others go on
            what = " ".join(str(error).split()) or type(error).__name__
            raise CodecError(f"codec {name!r} of distribution {_owner(point)} failed to load: {what}") from error
        if fingerprint is not None and own != fingerprint.hex():
            raise UnsupportedError(f"the stream needs {name} with fingerprint {fingerprint.hex()}; installed is {own}")
        return codec
    entry = pretrained.find(name, fingerprint)
    module, _, function = entry.loader.partition(":")
    return _ready(getattr(import_module(module), function)(entry), device, precision)


def _ready(codec: Codec, device: str, precision: Precision) -> Codec:
    check_precision(precision)
    codec.precision = precision
    return codec.to(device).eval()


def load_weights(path: str | os.PathLike[str]) -> Any:
    """The codec of a weights file or a profile; the file names the family that reads it.

    Raises:
        FormatError: no weights, or of a family that is not known here.
        OSError: the file cannot be read.
    """
    from ..entropy import opening  # here, since it needs numpy and listing codecs does not

    return codec_of_weights(opening.read_file(Path(path), opening.MAX_WEIGHTS), os.fspath(path))


def codec_of_weights(data: bytes, where: str) -> Any:
    """As `load_weights`, of the bytes of such a file."""
    from ..entropy import opening

    meta = opening.metadata(data, where)
    codec = meta.get("codec", "")
    # files of before families had names: that of a profile is its codec, a release says which codec it is of
    family = FAMILIES.get(meta["family"]) if "family" in meta else FAMILIES.get(codec) or family_of(codec)
    if family is None:
        known = ", ".join(FAMILIES)
        raise FormatError(f"{where} holds no weights, or of a family that is not known here ({known})")
    return import_module(family.module, __package__).from_bytes(data)


def is_weights(name: str) -> bool:
    """Whether a codec is named by a file of its weights."""
    return name.endswith(WEIGHTS_SUFFIX)


def load_codec(
    name: str | os.PathLike[str],
    device: str = "cpu",
    *,
    fingerprint: bytes | None = None,
    weights: Any = None,
    quality: int | None = None,
    precision: Precision = "fp32",
) -> Codec:
    """A codec with its weights, ready for use; cached, so repeated calls return the same module.

    Args:
        name: see `list_codecs`; or the path of a ``.safetensors`` file of one's own: what training exports, a
            bottleneck or a feature profile; or ``"compressai:MODEL"``, a picture model of CompressAI with ``weights``.
        device: a torch device.
        fingerprint: 8 bytes that pick older released weights; None takes the current ones. Not with a path.
        weights: of a foreign model: path of a checkpoint (``.pth``, ``.pth.tar``, ``.safetensors``), a state dict or
            a module. The codec is new with every call.
        precision: "bf16" runs the networks of pixels in bfloat16: the same symbols, pixels that differ by rounding.
        quality: of a foreign model: its number in the zoo it is from, to be checked against the weights' sizes.

    Raises:
        InputError: no such codec; weights that are missing or do not fit.
        UnsupportedError: no installed weights have this fingerprint, or a foreign model's package is missing.
        OSError: the weights cannot be read.
    """
    import torch

    from .surroundings import plain

    # whatever the caller has set: weights are float32, and tensors that can be trained
    with plain(), torch.inference_mode(False):
        return _loaded(os.fspath(name), str(device), fingerprint, weights, quality, precision)


def _loaded(
    name: str, device: str, fingerprint: bytes | None, weights: Any, quality: int | None, precision: Precision
) -> Codec:
    scheme = name.partition(":")[0]
    if scheme in SCHEMES:
        module, _, function = SCHEMES[scheme].partition(":")
        codec = getattr(import_module(module, __package__), function)(name, weights, quality, fingerprint)
        return _ready(codec, device, precision)
    if weights is not None or quality is not None:
        raise InputError(f"{name} brings its own weights: leave out weights and quality (encode takes a quality)")
    if is_weights(name) and fingerprint is None:  # streams name fingerprints: none makes us open a file
        return _ready(load_weights(name), device, precision)
    check_name(name)
    if name in WEIGHTLESS:
        module, _, factory = WEIGHTLESS[name].make.partition(":")
        return getattr(import_module(module, __package__), factory)().to(device)
    if fingerprint is None and name not in _plugins():
        fingerprint = bytes.fromhex(pretrained.find(name).fingerprint)  # one cache entry, named or not
    return _load(name, fingerprint, device, precision)
