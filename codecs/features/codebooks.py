"""A profile of codebooks (`transform="vq"`): rows as product codes under a rotation, both learned once from samples.

After product and optimised product quantisation and their low-rank, residual kin; see `codecs.vq.product`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, log2

import numpy as np
import torch
from torch import Tensor

from ...entropy import arrays, schema
from ...entropy.errors import FormatError, InputError
from ...entropy.numbers import real, whole
from ..vq import product
from ..vq.codes import ENTRIES, Codebooks
from ..vq.product import Product
from . import profile as profiles
from . import transforms
from .profile import pack, read_config

FORMAT = "2"  # of a profile of codebooks; a profile of a KLT has format 1
MAX_LEVELS = 64
PRICE = 1.0  # of a bit in the fit
FIT_ROWS = 1 << 16  # of the samples
_ROWS_A_WORD = 16  # codebooks of a small tensor have fewer codewords
_BITS = 7.0  # that a code is about worth
_TRIES = 7  # numbers of codes that are tried for a goal
_AT_ONCE = 1 << 14  # rows
_CONFIG = schema.record({
    "axis": schema.integer(-64, 63), "levels": schema.integer(1, MAX_LEVELS), "transform": schema.one_of("vq"),
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class CodeProfile:
    """Fitted codebooks, as they are stored.

    Attributes:
        books: quantiser and frequencies.
        axis: the channel axis of tensors.
    """

    books: Codebooks
    axis: int = -1

    @property
    def product(self) -> Product:
        return self.books.product

    @property
    def channels(self) -> int:
        return self.product.channels

    @cached_property
    def fingerprint(self) -> bytes:
        """First 8 bytes of a SHA-256 over all that decoding depends on."""
        h = hashlib.sha256(f"features codebooks {self.product.levels}".encode())
        for name, value in self.books.tensors().items():
            h.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
            h.update(value.numpy().tobytes())
        return h.digest()[:8]

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        config = {"axis": self.axis, "levels": self.product.levels, "transform": "vq"}
        prices = {"prices": self.product.prices}
        return pack(
            self.books.tensors() | prices, {"format": FORMAT, "codec": "features", "config": json.dumps(config)}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> CodeProfile:
        """Raises FormatError: not a profile of codebooks, or a damaged one."""
        where = "feature profile"
        config = read_config(data, "features", where, _CONFIG, FORMAT)
        found = arrays.tensors(data, where)
        books = Codebooks.of_tensors(found, config["levels"], where)
        if books.product.channels > transforms.MAX_FITTED:
            raise FormatError(f"{where}: {books.product.channels} channels; {transforms.MAX_FITTED} are the most")
        prices = arrays.take(found, "prices", torch.float32, books.product.prices.shape, where)
        books.product.prices.copy_(prices)
        return cls(books, config["axis"])


def fit(rows: Tensor, size: int | None, levels: int, price: float, nmse: float, axis: int) -> CodeProfile:
    """Learn a profile from rows (N, D) float32; see `FeatureCodec.fit`."""
    n, d = rows.shape
    levels, price = whole("levels", levels), real("price", price, "a number from 0 to 100")
    size = None if size is None else whole("size", size)
    if not 1 <= levels <= MAX_LEVELS or not 0 <= price <= 100:
        raise InputError(f"levels is {levels}, price {price}; 1 to {MAX_LEVELS} levels and a price of 0 to 100 exist")
    most = d * levels
    if size is not None and (not 1 <= size <= most or size % levels):
        raise InputError(f"size is {size}; {d} channels take 1 to {most} codes a row, a multiple of {levels} levels")
    check_rows(n, d)
    if size is None:
        target = nmse * float((rows.double() - rows.double().mean(0)).square().mean())
        found = fewest(rows, target, levels, price)
        if found is None:
            raise InputError(f"nmse is {nmse}, which {most} codes a row do not keep: take a KLT, or more levels")
        return CodeProfile(found[0], axis)
    return CodeProfile(fitted(rows, size, levels, price)[0], axis)


def check_rows(count: int, channels: int) -> None:
    """Raises InputError where codebooks cannot be fitted to so many rows of so many channels."""
    if count < 2 * _ROWS_A_WORD or channels > transforms.MAX_FITTED:
        raise InputError(
            f"{count} rows of {channels} channels; codebooks are fitted to {2 * _ROWS_A_WORD} rows or more, of at most "
            f"{transforms.MAX_FITTED} channels"
        )


Fitted = tuple[Codebooks, np.ndarray]  # with the codes (N, m) uint8 of the rows that they were fitted to


def codes_of(quantiser: Product, rows: Tensor) -> np.ndarray:
    """Codes (N, m) uint8 of rows (N, D)."""
    return torch.cat([quantiser.codes(part).to(torch.uint8) for part in rows.split(_AT_ONCE)]).numpy()


def fitted(rows: Tensor, size: int, levels: int, price: float) -> Fitted:
    """Codebooks of so many codes a row, as they are stored."""
    entries = max(2, min(ENTRIES, len(rows) // _ROWS_A_WORD))
    books = Codebooks.of(product.fit(rows, size, entries, price, levels=levels))
    codes = codes_of(books.product, rows)
    return books.counted(codes.T), codes


def _error(books: Codebooks, rows: Tensor, codes: np.ndarray) -> float:
    """Mean squared error that codes of rows (N, D) leave."""
    parts = zip(rows.split(_AT_ONCE), torch.from_numpy(codes).split(_AT_ONCE))
    return sum(float((x - books.product.rows(c)).double().square().sum()) for x, c in parts) / rows.numel()


def fewest(rows: Tensor, target: float, levels: int, price: float) -> Fitted | None:
    """Codebooks of the fewest codes found that leave rows (N, D) a mean squared error of at most so much; None where
    there are none."""
    d = rows.shape[1]
    good: dict[int, Fitted] = {}
    energy = torch.linalg.eigvalsh(transforms.covariance(rows)[1]).clamp_min(1e-30)
    step = profiles.water_step(energy, torch.ones(d).double(), target * d)
    above = (energy * 12 / step**2).clamp_min(1).log2() / 2  # bits that each component needs
    live = max(1, int((above > 0).sum()))

    def ahead(count: int) -> float:
        books, codes = fitted(rows, count * levels, levels, price)
        error = max(_error(books, rows, codes), 1e-38)
        if error <= target:
            good[count] = books, codes
        return live / (2 * _BITS * levels) * log2(error / target)

    near(ahead, round(float(above.sum()) / (_BITS * levels)), d, d)
    return good[min(good)] if good else None


def near(ahead: Callable[[int], float], first: int, most: int, safe: int) -> None:
    """Try numbers of codes 1..most until two neighbours, or nearly, lie on both sides of what is wanted.

    Args:
        ahead: tries one, and says by about how many the wanted one is larger.
        first: the guess to begin with.
        safe: what is tried before giving up, unless something beyond it was.
    """
    low, high, at = 0, most + 1, min(most, max(1, first))
    for turn in range(_TRIES):
        away = ahead(at)
        low, high = (at, high) if away > 0 else (low, at)
        if high - low <= 1 + low // 24:
            return
        step = ceil(away) if away > 0 else min(-1, floor(away))
        at = min(high - 1, max(low + 1, at + step))
        if turn == _TRIES - 2 and (low == 0 if safe == 1 else high > most):
            at = safe
