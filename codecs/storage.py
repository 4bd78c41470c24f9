"""Weights files of the trained codecs: safetensors holding the network, the coding tables and the configuration.

Most products are stored as bytes with a scale for each output channel, everything else as floats of a family's choice;
integers (exact networks, tables) as they are. `round_state` comes before measuring, so that what is measured ships. A
codec that shares tensors with a release of another one may store the others and name that release (`share`); one that
was trained on from a release may store by how much its bytes differ (`differ`), which packs to half.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .. import pretrained
from ..entropy import arrays, opening, schema
from ..entropy.errors import CodecError, FormatError, InputError
from ..entropy.schema import Check
from ..pretrained import Entry
from .base import BaseCodec

FORMAT = "1"
DIFFERENCES = "2"  # the format of a file that holds some
CODING = "coding."  # where the tables of a codec stand in a file and in the state of one that codes
AsBytes = Callable[[str, Tensor], bool]
Network = TypeVar("Network", bound=nn.Module)

# bounds that configurations share
CHANNELS = schema.integer(1, 1 << 14)
DEPTH = schema.integer(0, 64)
_NAME = schema.text(r"[ -~]+", 64)
_RELEASE = schema.text(r"[ -~]+:(?:[0-9a-f]{2})+", 128)  # name and fingerprint
_DIFFERENCE = "difference."
_METADATA = schema.record(
    {"codec": _NAME, "config": schema.text(most=1 << 16)},
    {"family": _NAME, "base": _RELEASE, "differs": _RELEASE},
)


@dataclass(frozen=True)
class Weights:
    """What a file held: the codec's name and configuration, its state and its coding arrays."""

    name: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    coding: dict[str, np.ndarray]


def _to_bytes(value: Tensor) -> tuple[Tensor, Tensor]:
    mantissa, exponent = torch.frexp(value.abs().amax(tuple(range(1, value.ndim)), keepdim=True).clamp_min(1e-12) / 127)
    # 11 bits make 127 * scale and its division by 127 exact, so that storing twice changes nothing
    scale = torch.ldexp((mantissa * 2048).round() / 2048, exponent)
    return (value / scale).round().to(torch.int8), scale


@torch.no_grad()
def round_state(codec: BaseCodec, as_bytes: AsBytes, dtype: torch.dtype = torch.float32) -> None:
    """Set the weights to what storage keeps of them.

    Args:
        as_bytes: says by name and value (a convolution weight) what becomes bytes.
        dtype: of the other floats in the file.
    """
    for key, value in codec.state_dict().items():
        if key.startswith(CODING):
            continue
        if as_bytes(key, value):
            stored, scale = _to_bytes(value)
            value.copy_(stored.float() * scale)
        elif value.is_floating_point():
            value.copy_(value.to(dtype).float())


@torch.no_grad()
def coarsen_state(codec: BaseCodec, as_bytes: AsBytes, bits: int) -> None:
    """Set what becomes bytes to few levels, so that files pack smaller; `round_state` comes after.

    Args:
        bits: of a level's number, 2 to 8. Each output channel takes the step that errs least, of four.

    Raises:
        InputError: another number of bits.
    """
    if bits not in range(2, 9):
        raise InputError(f"weights are stored in 2 to 8 bits, not {bits}")
    reach = 2 ** (bits - 1) - 1
    for key, value in codec.state_dict().items():
        if key.startswith(CODING) or not as_bytes(key, value):
            continue
        axes = tuple(range(1, value.ndim))
        top = value.abs().amax(axes, keepdim=True).clamp_min(1e-12)
        least, best = torch.full_like(top, math.inf), value.clone()
        for share in (1.0, 0.9, 0.8, 0.7):
            step = share * top / reach
            found = (value / step).round().clamp(-reach, reach) * step
            error = (found - value).square().sum(axes, keepdim=True)
            best, least = torch.where(error < least, found, best), torch.minimum(error, least)
        value.copy_(best)


def to_tensors(codec: BaseCodec, as_bytes: AsBytes, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """State and coding arrays of a codec as the tensors of a file."""
    tensors = {}
    for key, value in codec.state_dict().items():
        if key.startswith(CODING):
            continue
        value = value.detach().cpu().contiguous()
        if as_bytes(key, value):
            value, tensors[f"scale.{key}"] = _to_bytes(value.float())
        elif value.is_floating_point():
            value = value.to(dtype)
        tensors[f"model.{key}"] = value.contiguous()
    for key, array in codec.coding_arrays().items():
        tensors[f"coding.{key}"] = torch.from_numpy(np.ascontiguousarray(array))
    return tensors


def share(tensors: dict[str, Tensor], metadata: dict[str, str], base: Entry) -> None:
    """Leave out of a file what a bundled release holds as well, and name the release."""
    held = _whole(base.read())
    for key in [k for k, v in tensors.items() if k in held and _same(held[k], v)]:
        del tensors[key]
    metadata["base"] = f"{base.name}:{base.fingerprint}"


def differ(tensors: dict[str, Tensor], metadata: dict[str, str], base: Entry) -> bool:
    """Replace bytes by their differences, modulo 256, from those of a bundled release that holds its own whole, and
    name it. Returns whether there were any of the same shape."""
    data = base.read()
    if metadata["format"] != FORMAT or opening.metadata(data).get("format") != FORMAT:
        return False
    held = load(data)
    for key, value in list(tensors.items()):
        if key.startswith("model.") and value.dtype == torch.int8 and key in held and held[key].shape == value.shape:
            tensors[_DIFFERENCE + key] = tensors.pop(key) - held[key]
            metadata["format"], metadata["differs"] = DIFFERENCES, f"{base.name}:{base.fingerprint}"
    return metadata["format"] == DIFFERENCES


def _add_differences(tensors: dict[str, Tensor], base: dict[str, Tensor]) -> None:
    """Undo `differ`. Raises FormatError where the base holds nothing of the kind."""
    for name in [key for key in tensors if key.startswith(_DIFFERENCE)]:
        key, difference = name.removeprefix(_DIFFERENCE), tensors.pop(name)
        held = base.get(key)
        if held is None or difference.dtype != torch.int8 or held.dtype != torch.int8 or held.shape != difference.shape:
            raise FormatError(f"weights file: {name} is no difference from the release that it names")
        tensors[key] = torch.from_numpy(held.numpy() + difference.numpy())


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def metadata(codec: BaseCodec, config: dict[str, Any]) -> dict[str, str]:
    """Metadata of a file: text only, as safetensors asks."""
    return {"format": FORMAT, "codec": codec.name, "family": codec.family, "config": json.dumps(config)}


def read(data: bytes) -> Weights:
    """A weights file; no pickle is involved, nothing in it is believed unseen.

    Raises:
        FormatError: not a weights file of this format, or one that holds NaN or infinite values.
    """
    meta = opening.metadata(data)
    if meta.get("format") not in (FORMAT, DIFFERENCES):
        raise FormatError(f"weights of format {meta.get('format')!r:.40} need a newer latentzip, or are none")
    meta = _METADATA(meta, "weights file: ")
    config = schema.parse(meta["config"], "weights file: config", schema.record({}))
    tensors = _whole(data)
    state = {}
    for key, value in tensors.items():
        if not key.startswith("model."):
            continue
        key = key.removeprefix("model.")
        scale = tensors.get(f"scale.{key}")
        if scale is not None:
            if not value.ndim or tuple(scale.shape) != (len(value), *[1] * (value.ndim - 1)):
                raise FormatError(f"weights file: scale.{key} of shape {tuple(scale.shape)} for {tuple(value.shape)}")
            whole = value.numpy().astype(np.float32)  # numpy: no pool of threads is woken for it
            value = torch.from_numpy(np.multiply(whole, scale.float().numpy(), out=whole))
        state[key] = value.float() if value.is_floating_point() else value
    coding = {k.removeprefix("coding."): v.numpy() for k, v in tensors.items() if k.startswith("coding.")}
    return Weights(meta["codec"], config, state, coding)


def _whole(data: bytes) -> dict[str, Tensor]:
    """Tensors of a file and of the releases that it names, differences added up."""
    meta, tensors = opening.metadata(data), arrays.tensors(data)
    releases = {named: _release(named) for named in {meta[key] for key in ("base", "differs") if key in meta}}
    if "base" in meta:
        tensors = releases[meta["base"]] | tensors
    if "differs" in meta:
        _add_differences(tensors, releases[meta["differs"]])
    return tensors


def _release(named: str) -> dict[str, Tensor]:
    """Tensors of a bundled release, by name and fingerprint."""
    name, _, fingerprint = named.partition(":")
    try:
        return _whole(pretrained.find(name, bytes.fromhex(fingerprint)).read())
    except CodecError as error:
        raise FormatError(f"weights that share tensors with another release: {error}") from error


def coding_array(weights: Weights, name: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A coding array that must have this dtype and shape; raises FormatError."""
    array = weights.coding.get(name)
    if array is None or array.dtype != dtype or array.shape != shape:
        found = "missing" if array is None else f"{array.dtype} {array.shape}"
        raise FormatError(f"weights file: coding.{name} is {found}, not {np.dtype(dtype)} {shape}")
    return array


def checked(kind: str, bounds: Mapping[str, Check], config: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose every field is known and within bounds; raises FormatError."""
    return schema.record({}, bounds, closed=True)(config, f"configuration of {kind}: ")


def build(make: Callable[[], Network], state: Mapping[str, Tensor], kind: str) -> Network:
    """A network with this state. What its making may allocate is bounded by the state's size.

    Raises:
        FormatError: tensors that are missing, unknown or of another shape.
    """
    # what is drawn is replaced below: the user's random numbers stay as they were
    with torch.random.fork_rng(devices=[]), _Allowance(sum(value.numel() for value in state.values()), kind):
        network = make()
    expected = network.state_dict()
    for key, like in expected.items():
        if key not in state:
            raise FormatError(f"not the weights of {kind}: {key} is missing")
        value = state[key]
        exact = like.is_floating_point() or value.dtype == like.dtype
        if value.shape != like.shape or value.is_floating_point() != like.is_floating_point() or not exact:
            raise FormatError(
                f"not the weights of {kind}: {key} is {value.dtype} {tuple(value.shape)}, not {like.dtype} "
                f"{tuple(like.shape)}"
            )
    if unknown := [key for key in state if key not in expected]:
        raise FormatError(f"not the weights of {kind}: {unknown[0]} is none of its tensors")
    network.load_state_dict(dict(state))
    return network


class _Allowance(TorchFunctionMode):
    """In which new tensors may hold so many elements in all; a configuration that asks for more is refused.

    A device without memory ("meta") would say sizes too, but torch imports its compiler for it: seconds.
    """

    MADE = frozenset(
        {"empty", "zeros", "ones", "full", "rand", "randn", "new_empty", "new_zeros", "new_ones", "new_full"}
    )
    DRAWN = frozenset(
        {"uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "trunc_normal_"}
    )
    TIMES, SPARE = 8, 1 << 22  # what is made on the way, tables that are not stored

    def __init__(self, state: int, kind: str) -> None:
        super().__init__()
        self._left, self._kind = self.TIMES * state + self.SPARE, kind

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in self.MADE:
            shape = next((a for a in args if isinstance(a, (tuple, list))), None)
            self._left -= math.prod(shape or [a for a in args if isinstance(a, int)])
            if self._left < 0:
                raise FormatError(
                    f"not the weights of {self._kind}: the configuration asks for more than the file holds"
                )
        return func(*args, **(kwargs or {}))
