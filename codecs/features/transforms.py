"""What turns channels into components: nothing, a Hadamard rotation, or a matrix fitted to data (KLT).

A transform is its synthesis: `x = y @ synthesis + mean`. The analysis is the inverse (or pseudo-inverse) of the very
numbers that are stored, so coarse storage of a basis costs rate, and a little accuracy only where components were
dropped. Components are in the order of their energy.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...entropy.coder import Decoder, Encoder
from ...entropy.errors import FormatError
from ...entropy.models import TableModel, Uniform
from ...kernels.hadamard import hadamard
from .rows import bank

IDENTITY, HADAMARD, LINEAR = 0, 1, 2  # the numbers stand in streams
NAMES = {"identity": IDENTITY, "hadamard": HADAMARD, "klt": LINEAR}
MAX_FITTED = 4096  # channels up to which a matrix is fitted
_NOISE = 0.2  # storing a basis may cost this much of a step's error
_AT_ONCE = 1 << 21  # values that become float64 at a time
_FIT_ROWS = 1 << 16


@dataclass(frozen=True, eq=False)
class Transform:
    """One of the three kinds.

    Attributes:
        kind: IDENTITY, HADAMARD or LINEAR.
        mean: (D,) float32, or None for zeros.
        synthesis: (K, D) float32 rows of a LINEAR transform, K <= D, the most important first.
    """

    kind: int
    mean: Tensor | None = None
    synthesis: Tensor | None = None

    @cached_property
    def analysis_matrix(self) -> Tensor:
        """(D, K) float32."""
        assert self.synthesis is not None
        matrix = self.synthesis.double()
        if matrix.shape[0] == matrix.shape[1]:
            inverse, info = torch.linalg.inv_ex(matrix)
            if not int(info):
                return inverse.float()
        return torch.linalg.pinv(matrix).float()

    def recentred(self, mean: Tensor) -> Transform:
        """The same around another mean."""
        other = replace(self, mean=mean)
        if self.kind == LINEAR:
            other.__dict__["analysis_matrix"] = self.analysis_matrix  # what `cached_property` would fill in
        return other

    def components(self, channels: int) -> int:
        return channels if self.synthesis is None else self.synthesis.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Rows (N, D) float32 -> components (N, K) float32."""
        if self.mean is not None:
            x = x - self.mean
        if self.kind == HADAMARD:
            return hadamard(x)
        return x @ self.analysis_matrix if self.kind == LINEAR else x

    def inverse(self, y: Tensor, channels: int, live: Tensor | None = None) -> Tensor:
        """Components (N, K) -> rows (N, D); of fewer components than there are, the first ones.

        Args:
            live: (K,) which components these are; the others are zero.
        """
        if self.synthesis is not None:
            rows = self.synthesis[: y.shape[1]] if live is None else self.synthesis[live]
            return y @ rows if self.mean is None else torch.addmm(self.mean, y, rows)
        if live is not None and len(live) < channels:
            y = y.new_zeros(len(y), channels).index_copy_(1, live, y)
        if y.shape[1] < channels:
            y = torch.nn.functional.pad(y, (0, channels - y.shape[1]))
        if self.kind == HADAMARD:
            y = hadamard(y)
        return y if self.mean is None else y + self.mean


def covariance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of rows (N, D), float64, of at most 65,536 of them evenly spaced."""
    rows = x[:: -(-x.shape[0] // _FIT_ROWS)]
    parts = rows.split(max(1, _AT_ONCE // x.shape[1]))
    if len(parts) == 1:
        mean = rows.double().mean(0)
    else:
        mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / rows.shape[0]
    second = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for part in parts:
        wide = part.double() - mean
        second += wide.T @ wide
    return mean, second / max(1, rows.shape[0])


def variance(x: Tensor) -> float:
    """Of all values of rows (N, D), in float64."""
    parts = x.split(max(1, _AT_ONCE // x.shape[1]))
    if len(parts) == 1:
        return float(x.double().var(correction=0))
    mean = sum(float(part.double().sum()) for part in parts) / x.numel()
    return sum(float((part.double() - mean).square().sum()) for part in parts) / x.numel()


def fit(mean: Tensor, second: Tensor, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The Karhunen-Loeve transform of a covariance, orthonormal in a metric.

    Args:
        mean, second: (D,) and (D, D) float64.
        metric: (D, D) positive definite: errors e are judged by e @ metric @ e. None: the identity.

    Returns:
        Synthesis (D, D) float64, rows in the order of their energy, and those energies (D,).
    """
    root = back = None
    if metric is not None:
        values, vectors = torch.linalg.eigh(metric)
        values = values.clamp_min(float(values.max()) * 1e-6).sqrt()
        root, back = (vectors * values) @ vectors.T, (vectors / values) @ vectors.T
        second = root @ second @ root
    energy, vectors = torch.linalg.eigh((second + second.T) / 2)
    vectors, energy = vectors.flip(1), energy.flip(0).clamp_min(0)
    rows = vectors.T
    # a sign for each row that does not depend on the solver
    at = rows.abs().argmax(1)
    rows = rows * torch.where(rows[torch.arange(len(rows)), at] < 0, -1.0, 1.0)[:, None]
    return (rows if back is None else rows @ back), energy


def embed_precision(synthesis: Tensor, energy: Tensor, step: float) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
    """Integers (K, D) and the units (K,) float32 that store a basis no finer than a step needs."""
    keep = max(1, int((energy.sqrt() > step / 4).sum()))
    rows, deviation = synthesis[:keep], energy[:keep].sqrt().clamp_min(step / 4)
    unit = (_NOISE * step / deviation / keep**0.5).float()
    unit = torch.exp2(torch.round(torch.log2(unit) * 2) / 2)
    unit = torch.maximum(unit, rows.abs().amax(1).float() / (1 << 20))
    return torch.round(rows / unit[:, None].double()).to(torch.int32).numpy(), unit.numpy()


def pack(transform: Transform, integers: npt.NDArray[np.int32] | None, units: npt.NDArray[Any] | None) -> bytes:
    """What a stream carries of a transform that no profile brings."""
    parts = []
    if transform.mean is not None:
        parts.append(zlib.compress(transform.mean.numpy().astype("<f4").view(np.uint8).reshape(-1, 4).T.tobytes(), 9))
    if integers is not None and units is not None:
        encoder = Encoder()
        _code_basis(encoder, integers, integers.shape)  # type: ignore[arg-type]
        parts.append(len(units).to_bytes(4, "little") + units.astype("<f4").tobytes() + encoder.finish())
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def unpack(data: bytes, kind: int, channels: int, has_mean: bool) -> Transform:
    """Inverse of `pack`.

    Raises:
        FormatError: the bytes are no transform of so many channels.
    """
    parts = []
    while data:
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 + size:
            raise FormatError("the transform of a feature stream is cut short: the stream is corrupt")
        parts.append(data[4 : 4 + size])
        data = data[4 + size :]
    if len(parts) != has_mean + (kind == LINEAR):
        raise FormatError("the transform of a feature stream is not what its parameters say: the stream is corrupt")
    mean = synthesis = None
    if has_mean:
        try:
            raw = zlib.decompressobj().decompress(parts[0], 4 * channels + 1)
        except zlib.error as error:
            raise FormatError(f"the means of a feature stream are corrupt ({error})") from error
        if len(raw) != 4 * channels:
            raise FormatError("the means of a feature stream do not fit its channels: the stream is corrupt")
        planes = np.frombuffer(raw, np.uint8).reshape(4, channels)
        mean = torch.from_numpy(np.ascontiguousarray(planes.T).view("<f4").reshape(-1).astype(np.float32))
    if kind == LINEAR:
        part = parts[-1]
        count = int.from_bytes(part[:4], "little")
        if len(part) < 4 + 4 * count or count > channels:
            raise FormatError("the basis of a feature stream is cut short: the stream is corrupt")
        units = np.frombuffer(part[4 : 4 + 4 * count], "<f4").astype(np.float32)
        decoder = Decoder(part[4 + 4 * count :])
        integers = _code_basis(decoder, None, (count, channels))
        decoder.finish()
        synthesis = torch.from_numpy(integers.astype(np.float32) * units[:, None])
    return Transform(kind, mean, synthesis)


def _code_basis(coder: Any, integers: npt.NDArray[np.int32] | None, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Entries of a basis, each row under the Gaussian table that suits it."""
    k, d = shape
    if k == 0:
        return np.zeros((0, d), np.int32)
    level = None
    if integers is not None:
        from ...entropy import banks

        deviation = np.sqrt((integers.astype(np.float64) ** 2).mean(1))
        level = np.minimum(np.searchsorted(banks.scales(), deviation), 63).astype(np.int32)
    level = np.asarray(coder.code(level, Uniform(0, 63, (k,)))).astype(np.uint8)
    index = np.ascontiguousarray(np.broadcast_to(level[:, None], (k, d)))
    return np.asarray(coder.code(integers, TableModel(bank(), index)))
