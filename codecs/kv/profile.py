"""What a KV codec has learned of a model: for each layer a rotation of keys and values together, and a step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...entropy import arrays, schema
from ...entropy.dense import tensor_of
from ...entropy.errors import FormatError, InputError
from ...entropy.numbers import share
from ..features import profile as profiles
from ..features.profile import Profile
from ..features.transforms import MAX_FITTED
from .layout import Geometry, Pairs, Rotary, geometry_of, pairs_of, rows_of

_SIZE = schema.integer(1, 1 << 16)
_TOKENS = schema.integer(0, 1 << 48)
_CONFIG = schema.record({
    "geometry": schema.array(_SIZE, 4, 4), "groups": _SIZE, "upright": schema.array(schema.integer(0, 1), 1 << 16),
    "rotary": schema.nullable(schema.record({
        "inv_freq": schema.array(schema.number(-1e6, 1e6), 1 << 15, 1), "interleaved": schema.boolean
    })),
    "steps": schema.array(profiles.STEP, 1 << 16), "first": _TOKENS, "recent": _TOKENS,
    "segment": schema.integer(1, 1 << 32),
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class KVProfile:
    """Fitted rotations of a model's cache.

    Attributes:
        geometry: of the cache.
        units: the rotation of each group of heads, group by group, layer by layer; channels as `layout.rows_of`.
        upright: for each layer whether keys are coded as before the rotary positions.
        rotary: what takes the rotary positions off and puts them back; None where no layer needs it.
        steps: widths of the quantisation cells, one a layer; streams carry them, the fingerprint does not cover them.
        first, recent: how many tokens at the beginning and at the end are kept as they are.
        segment: tokens that are coded together.
    """

    geometry: Geometry
    units: tuple[Profile, ...]
    upright: tuple[bool, ...]
    rotary: Rotary | None
    steps: tuple[float, ...]
    first: int = 4
    recent: int = 32
    segment: int = 128

    @property
    def groups(self) -> int:
        """Units of a layer."""
        return len(self.units) // self.geometry.layers

    @cached_property
    def fingerprint(self) -> bytes:
        """First 8 bytes of a SHA-256 over all that decoding depends on beside the stream."""
        h = hashlib.sha256(b"kv-cache profile 1")
        h.update(json.dumps(self._config()[0], sort_keys=True).encode())
        for unit in self.units:
            h.update(unit.fingerprint)
        return h.digest()[:8]

    def _config(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What decoding depends on, and what encoders choose by."""
        g, r = self.geometry, self.rotary
        fixed = {
            "geometry": [g.layers, g.heads, g.key_dim, g.value_dim], "groups": self.groups,
            "upright": [int(u) for u in self.upright],
            "rotary": None if r is None else {"inv_freq": list(r.inv_freq), "interleaved": r.interleaved},
        }  # fmt: skip
        free = {"steps": list(self.steps), "first": self.first, "recent": self.recent, "segment": self.segment}
        return fixed, free

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        fixed, free = self._config()
        tensors = {f"{name}.{i}": t for i, u in enumerate(self.units) for name, t in u.tensors().items()}
        meta = {"format": profiles.FORMAT, "codec": "kv-cache", "config": json.dumps(fixed | free)}
        return profiles.pack(tensors, meta)

    @classmethod
    def from_bytes(cls, data: bytes) -> KVProfile:
        """Raises FormatError: not a profile, or one of a newer version."""
        c = profiles.read_config(data, "kv-cache", "KV profile", _CONFIG)
        t = arrays.tensors(data, "KV profile")
        geometry = Geometry(*c["geometry"])
        if geometry.heads % c["groups"] or len(t) != 4 * geometry.layers * c["groups"]:
            raise FormatError("a KV profile's tensors are not those of its layers and groups")
        units = tuple(
            Profile.of_tensors({n: t.get(f"{n}.{i}") for n in ("basis", "scale", "mean", "width")}, 1.0, -1)
            for i in range(geometry.layers * c["groups"])
        )
        r = c["rotary"]
        rotary = None if r is None else Rotary(tuple(map(float, r["inv_freq"])), bool(r["interleaved"]))
        keep = {name: c[name] for name in ("first", "recent", "segment")}
        steps = tuple(map(float, c["steps"]))
        made = cls(geometry, units, tuple(map(bool, c["upright"])), rotary, steps, **keep)
        sound = len(steps) == len(made.upright) == geometry.layers and (rotary is not None or not any(made.upright))
        sound = sound and all(u.channels * made.groups == geometry.width for u in units)
        sound = sound and (rotary is None or 0 < 2 * len(rotary.inv_freq) <= geometry.key_dim)
        if not sound:
            raise FormatError("a KV profile's parts do not fit each other")
        return made

    def with_steps(self, steps: Sequence[float]) -> KVProfile:
        """The same rotations under other steps, one a layer."""
        if len(steps) != self.geometry.layers or not all(1e-30 < float(s) < 1e30 for s in steps):
            raise InputError(
                f"steps are {list(steps)}; {self.geometry.layers} positive numbers are needed, one a layer"
            )
        return replace(self, steps=tuple(float(s) for s in steps))

    def steps_for(self, nmse: float, common: bool = False) -> tuple[float, ...]:
        """Steps by weighted errors: this part of each layer's variance, or with `common` of that of all layers."""
        per = self.groups
        energy = [np.concatenate([_energy(u) for u in self.units[i : i + per]]) for i in range(0, len(self.units), per)]
        if common:
            return (_water(np.concatenate(energy), nmse),) * self.geometry.layers
        return tuple(_water(e, nmse) for e in energy)


def fit(
    caches: Iterable[Any], rotary: Rotary | None, nmse: float, weights: Sequence[Any] | None, keys_weight: float
) -> KVProfile:
    """Learn a profile; see `KVCacheCodec.fit`."""
    nmse = share("nmse", nmse)
    if not isinstance(caches, Iterable):
        raise InputError(f"fit takes a list of caches, not a {type(caches).__name__}")
    samples = [pairs_of(cache) for cache in caches]
    if not samples:
        raise InputError("fit needs caches: at least one of some hundred tokens")
    geometry = geometry_of(samples[0])
    for sample in samples:
        check_geometry(sample, geometry)
    if rotary is not None and not hasattr(rotary, "inv_freq"):
        raise InputError(f"rotary is {rotary!r:.60}; what latentzip.kv.rotary_of(model) gives is needed")
    if rotary is not None and 2 * len(rotary.inv_freq) > geometry.key_dim:
        raise InputError(f"rotary turns {2 * len(rotary.inv_freq)} channels, a head of keys has {geometry.key_dim}")
    if weights is not None and len(weights) != geometry.layers:
        raise InputError(f"weights has {len(weights)} entries; one for each of {geometry.layers} layers is needed")
    groups = next(
        g for g in range(1, geometry.heads + 1) if geometry.heads % g == 0 and geometry.width // g <= MAX_FITTED
    )
    units: list[Profile] = []
    upright = []
    for layer in range(geometry.layers):
        metric = None if weights is None else _matrix(weights[layer], geometry.width, layer)
        turned = _fit_layer(samples, layer, None, geometry, groups, nmse, metric, keys_weight)
        straight = turned
        if rotary is not None:
            straight = _fit_layer(samples, layer, rotary, geometry, groups, nmse, metric, keys_weight)
        step = _water(np.concatenate([_energy(u) for u in turned]), nmse)
        upright.append(sum(_bits(u, step) for u in straight) < sum(_bits(u, step) for u in turned))
        units += straight if upright[-1] else turned
    made = KVProfile(geometry, tuple(units), tuple(upright), rotary if any(upright) else None, (1.0,) * geometry.layers)
    return replace(made, steps=made.steps_for(nmse, common=weights is not None))


def check_geometry(pairs: Pairs, geometry: Geometry) -> None:
    """Raises InputError when a cache is of another model."""
    if geometry_of(pairs) != geometry:
        raise InputError(f"the cache has {geometry_of(pairs)}; the codec was fitted to {geometry}")


def unit_rows(keys: Tensor, values: Tensor, groups: int) -> list[Tensor]:
    """Rows (B * T, width / groups) of each group of heads."""
    return [rows_of(k, v) for k, v in zip(keys.chunk(groups, 1), values.chunk(groups, 1))]


def _fit_layer(
    samples: list[Pairs], layer: int, rotary: Rotary | None, geometry: Geometry, groups: int, nmse: float,
    metric: Tensor | None, keys_weight: float,
) -> list[Profile]:  # fmt: skip
    rows: list[list[Tensor]] = [[] for _ in range(groups)]
    for sample in samples:
        keys, values = (t.detach().cpu() for t in sample[layer])
        keys = keys if rotary is None else rotary.turn(keys, 0, back=True)
        for group, part in zip(rows, unit_rows(keys.float(), values.float(), groups)):
            group.append(part)
    heads = geometry.heads // groups
    out = []
    for number, group in enumerate(rows):
        x = torch.cat(group)
        if len(x) < 2 or not bool(torch.isfinite(x).all()):
            raise InputError(f"layer {layer}: fit needs at least two tokens, and finite keys and values")
        if metric is None:
            split = heads * geometry.key_dim
            power = [float(t.double().var(0, correction=0).sum()) for t in (x[:, :split], x[:, split:])]
            w = torch.ones(x.shape[1], dtype=torch.float64)
            w[:split] = keys_weight / max(power[0], 1e-30)
            w[split:] = 1 / max(power[1], 1e-30)
        else:
            index = _channels(geometry, groups, number)
            w = metric[index][:, index]
        out.append(profiles.fit([x], -1, nmse, w))
    return out


def _channels(geometry: Geometry, groups: int, number: int) -> Tensor:
    """Which of a layer's channels are those of a group of heads."""
    keys, values = geometry.heads * geometry.key_dim, geometry.heads * geometry.value_dim
    return torch.cat([torch.arange(keys).chunk(groups)[number], keys + torch.arange(values).chunk(groups)[number]])


def _matrix(weights: Any, width: int, layer: int) -> Tensor:
    w = tensor_of(weights, "biuf", f"weights of layer {layer}").cpu().double()
    w = torch.diag(w) if w.shape == (width,) else w
    if w.shape != (width, width):
        raise InputError(f"weights of layer {layer} have shape {tuple(w.shape)}; ({width},) or ({width}, {width})")
    return w


def _energy(unit: Profile) -> np.ndarray:
    return np.exp(2 * profiles.WIDTH_UNIT * unit.width.numpy().astype(np.float64))


def _bits(unit: Profile, step: float) -> float:
    return float(np.maximum(0.0, 0.5 * np.log2(12 * _energy(unit) / step**2)).sum())


def _water(energy: np.ndarray, nmse: float) -> float:
    """The step whose cells, or the components' own energy where that is less, make up this part of the energy."""
    target, low, high = nmse * float(energy.sum()), -80.0, log(sqrt(12 * float(energy.sum())) + 1e-30) + 1
    for _ in range(60):
        middle = (low + high) / 2
        over = float(np.minimum(energy, np.exp(2 * middle) / 12).sum()) > target
        low, high = (low, middle) if over else (middle, high)
    return float(np.exp(low))
