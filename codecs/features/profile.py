"""What is learned once for a layer or a model: a rotation, the widths of its components, a step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from ...entropy import arrays, banks, opening, schema
from ...entropy.dense import tensor_of
from ...entropy.errors import FormatError, InputError
from . import transforms
from .transforms import LINEAR, Transform

FORMAT = "1"
MOST = 1e30  # float32 arithmetic is safe for magnitudes below
STEP = schema.number(1e-30, MOST)
_CONFIG = schema.record({"step": STEP, "axis": schema.integer(-64, 63)})
WIDTH_UNIT = log(256.0 / 0.11) / (banks.NUM_SCALES - 1)  # between the widths of neighbouring tables


@dataclass(frozen=True, eq=False)
class Profile:
    """A fitted transform, as it is stored.

    Attributes:
        basis: (K, D) int8, rows of the synthesis in units of `scale`.
        scale: (K,) float32.
        mean: (D,) float32.
        width: (K,) int16: logarithm of each component's deviation, in units of a table.
        step: default width of a quantisation cell.
        axis: the channel axis of tensors.
    """

    basis: Tensor
    scale: Tensor
    mean: Tensor
    width: Tensor
    step: float
    axis: int = -1

    @property
    def channels(self) -> int:
        return self.basis.shape[1]

    @cached_property
    def transform(self) -> Transform:
        return Transform(LINEAR, self.mean, self.basis.float() * self.scale[:, None])

    @cached_property
    def fingerprint(self) -> bytes:
        """First 8 bytes of a SHA-256 over all that decoding depends on."""
        h = hashlib.sha256(b"features profile 1")
        for name, value in self.tensors().items():
            h.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
            h.update(value.contiguous().numpy().tobytes())
        return h.digest()[:8]

    def levels(self, offset: int) -> npt.NDArray[np.int32]:
        """(K,) levels that components are expected to have under a step of this logarithm, see `step_offset`."""
        return np.clip(self.width.numpy().astype(np.int32) - offset + 1, 0, banks.NUM_SCALES)

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it."""
        return {"basis": self.basis, "scale": self.scale, "mean": self.mean, "width": self.width}

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        meta = {"format": FORMAT, "codec": "features", "config": json.dumps({"step": self.step, "axis": self.axis})}
        return pack(self.tensors(), meta)

    @classmethod
    def from_bytes(cls, data: bytes) -> Profile:
        """Raises FormatError: not a profile, or one of a newer version."""
        config = read_config(data, "features", "feature profile", _CONFIG)
        tensors = arrays.tensors(data, "feature profile")
        return cls.of_tensors(tensors, float(config["step"]), config["axis"])

    @classmethod
    def of_tensors(cls, t: dict[str, Tensor], step: float, axis: int) -> Profile:
        """Inverse of `tensors`; raises FormatError where they are missing or do not fit each other."""
        where = "feature profile"
        basis = arrays.take(t, "basis", torch.int8, (-1, -1), where)
        k, d = basis.shape
        scale = arrays.take(t, "scale", torch.float32, (k,), where)
        mean = arrays.take(t, "mean", torch.float32, (d,), where)
        width = arrays.take(t, "width", torch.int16, (k,), where)
        if not 1 <= k <= d <= transforms.MAX_FITTED:
            raise FormatError(f"{where}: {k} components of {d} channels; 1 to {transforms.MAX_FITTED} are possible")
        if not bool((basis != 0).any(1).all()) or not bool(((scale > 0) & (scale < MOST)).all()):
            raise FormatError(f"{where}: a component of zeros, or of a scale beyond 0..{MOST:g}: it is damaged")
        if not bool((mean.abs() < MOST).all()):
            raise FormatError(f"{where}: means that are not finite, or beyond {MOST:g}")
        return cls(basis, scale, mean, width, step, axis)


def read_config(data: bytes, codec: str, where: str, check: schema.Check, kind: str = FORMAT) -> Any:
    """The configuration in a profile's file; raises FormatError: not a profile of this codec and format."""
    meta = opening.metadata(data, where)
    if (meta.get("format"), meta.get("codec")) != (kind, codec):
        found = f"{meta.get('codec')} {meta.get('format')}"
        raise FormatError(f"not a {where} of format {kind} but {found:.60}; it may need a newer latentzip")
    return schema.parse(meta.get("config", ""), f"{where}: config", check)


def pack(tensors: dict[str, Tensor], meta: dict[str, str]) -> bytes:
    """A safetensors file, the same bytes for the same content: the library leaves the order of metadata to chance."""
    data = save_tensors({k: v.contiguous() for k, v in tensors.items()}, meta)
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def step_offset(step: float) -> int:
    """A step on the logarithmic scale of `Profile.width`; a choice of the encoder that streams carry."""
    return round((log(step) + log(0.11)) / WIDTH_UNIT)


def rows_of(samples: Iterable[Tensor], axis: int, most: int) -> Tensor:
    """The rows (N, D) float32 of samples, at most so many, evenly spaced; InputError where samples do not fit."""
    parts: list[Tensor] = []
    for x in samples:
        rows = _rows(x, axis)
        if parts and rows.shape[1] != parts[0].shape[1]:
            raise InputError(f"samples have {parts[0].shape[1]} and {rows.shape[1]} channels along axis {axis}")
        parts.append(rows)
    if not parts:
        raise InputError("fit needs samples: at least two rows of channels")
    rows = torch.cat(parts)
    return rows[:: -(-len(rows) // most) or 1]


def _rows(x: Tensor, axis: int) -> Tensor:
    if x.shape[axis] == 0:
        raise InputError(f"a sample of shape {tuple(x.shape)} has no channels")
    rows = x.movedim(axis, -1).reshape(-1, x.shape[axis]).float()
    if not bool(torch.isfinite(rows).all()):
        raise InputError("a sample contains NaN or infinite values; a profile is fitted to finite ones")
    return rows


def fit(samples: Iterable[Tensor], axis: int, nmse: float, weights: Any = None) -> Profile:
    """Learn a profile; see `FeatureCodec.fit`."""
    total, count = None, 0
    mean = second = torch.zeros(0)
    for x in samples:
        rows = _rows(x, axis)
        if total is None:
            total, second = torch.zeros(rows.shape[1]).double(), torch.zeros(rows.shape[1], rows.shape[1]).double()
        if rows.shape[1] != total.numel():
            raise InputError(f"samples have {total.numel()} and {rows.shape[1]} channels along axis {axis}")
        if rows.shape[1] > transforms.MAX_FITTED:
            raise InputError(f"{rows.shape[1]} channels; a profile is fitted to at most {transforms.MAX_FITTED}")
        wide = rows.double()
        total += wide.sum(0)
        second += wide.T @ wide
        count += rows.shape[0]
    if total is None or count < 2:
        raise InputError("fit needs samples: at least two rows of channels")
    mean = total / count
    second = second / count - torch.outer(mean, mean)
    # few samples span few directions, and what comes later is not bound to them
    d = total.numel()
    doubt = max(1e-6, 0.05 * min(1.0, d / count)) if count < 20 * d else 1e-6
    second = second + torch.eye(d).double() * max(doubt * float(second.diagonal().mean()), 1e-70)
    synthesis, energy = transforms.fit(mean, second, _metric(weights, d))
    scale = synthesis.abs().amax(1).clamp_min(1e-30).float() / 127
    basis = torch.round(synthesis / scale[:, None].double()).to(torch.int8)
    width = torch.round(torch.log(energy.clamp_min(1e-72)) / (2 * WIDTH_UNIT)).to(torch.int16)
    variance = float(second.diagonal().sum())
    step = water_step(energy, (synthesis * synthesis).sum(1), nmse * variance)
    return Profile(basis, scale, mean.float(), width, max(step, 1e-30), axis)


def _metric(weights: Any, channels: int) -> Tensor | None:
    if weights is None:
        return None
    metric = tensor_of(weights, "biuf", "weights").cpu().double()
    if metric.shape == (channels,):
        metric = torch.diag(metric)
    if metric.shape != (channels, channels) or not bool(torch.isfinite(metric).all()):
        raise InputError(
            f"weights have shape {tuple(metric.shape)}; ({channels},) or ({channels}, {channels}) is needed"
        )
    metric = (metric + metric.T) / 2
    values = torch.linalg.eigvalsh(metric)
    if float(values[0]) < -1e-6 * float(values[-1]) or float(values[-1]) <= 0:
        raise InputError("weights must be non-negative: numbers a channel, or a positive semi-definite matrix")
    return metric


def water_step(energy: Tensor, norm: Tensor, distortion: float) -> float:
    """The step whose cells, or the components' own energy where that is less, make up the distortion."""
    high = 2 * float((12 * energy.max()).sqrt()) + 1e-36
    low = high * 1e-12  # values may have any scale
    for _ in range(60):
        step = (low * high) ** 0.5
        if float((torch.minimum(energy, torch.tensor(step * step / 12).double()) * norm).sum()) > distortion:
            high = step
        else:
            low = step
    return low
