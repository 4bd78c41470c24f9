"""Product codes as bytes: the quantiser with the frequencies of its codes, and groups of rows coded under these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...entropy import arrays
from ...entropy.coder import Decoder, Encoder
from ...entropy.errors import FormatError, InputError
from ...entropy.models import TableModel
from ...entropy.tables import TableBank
from .product import Product

ENTRIES = 255  # of a codebook: with the escape a table has 256, which is the fastest to decode
MOST = 1 << 26  # codes of a group
_PRECISION = 12


@dataclass(frozen=True, eq=False)
class Codebooks:
    """A quantiser as it is stored, in 16 bits a number, and how often its codes occur.

    Attributes:
        product: the quantiser; without prices once it has been stored.
        rotation: float16, what its rotation is stored as.
        bank: a table a code of a row.
    """

    product: Product
    rotation: Tensor
    bank: TableBank

    @classmethod
    def of(cls, product: Product) -> Codebooks:
        """The quantiser as it is stored; its codes are equally frequent until they are `counted`."""
        rotation, words = product.rotation.half(), product.codewords.half().float()
        product = Product(product.mean.float(), turn(rotation), words, product.prices, product.levels)
        return cls(product, rotation, _bank([np.zeros(0, np.uint8)] * product.parts, product.entries))

    def counted(self, columns: Iterable[np.ndarray]) -> Codebooks:
        """With the frequencies of codes, those of each code of a row (m of them)."""
        return replace(self, bank=_bank(columns, self.product.entries))

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it; the levels are told beside."""
        frequencies = np.stack([self.bank.table(t) for t in range(self.bank.num_tables)]).astype(np.int16)
        return {
            "mean": self.product.mean.contiguous(), "rotation": self.rotation.contiguous(),
            "codewords": self.product.codewords.half().contiguous(), "frequencies": torch.from_numpy(frequencies),
        }  # fmt: skip

    @classmethod
    def of_tensors(cls, found: dict[str, Tensor], levels: int, where: str) -> Codebooks:
        """Inverse of `tensors`; FormatError where they are missing or do not fit each other."""
        mean = arrays.take(found, "mean", torch.float32, (-1,), where)
        words = arrays.take(found, "codewords", torch.float16, (-1, -1, -1), where)
        (channels,), (parts, entries, width) = mean.shape, words.shape
        groups = parts // max(1, levels)
        if not (
            channels and 2 <= entries <= ENTRIES and 1 <= levels <= parts and parts % levels == 0
            and groups <= channels and 1 <= width <= -(-channels // groups)
        ):  # fmt: skip
            raise FormatError(
                f"{where}: {parts} codes on {levels} levels, {entries} codewords of {width} for {channels} channels: "
                "it is corrupt"
            )
        rotation = arrays.take(found, "rotation", torch.float16, (channels, groups * width), where)
        frequencies = arrays.take(found, "frequencies", torch.int16, (parts, entries + 1), where)
        try:
            bank = TableBank(list(frequencies.numpy().astype(np.int64)), [0] * parts, [0] * parts, _PRECISION)
        except InputError as error:
            raise FormatError(f"{where}: frequencies that are none: {error}") from error
        product = Product(mean, turn(rotation), words.float(), torch.zeros(parts, entries), levels)
        return cls(product, rotation, bank)

    # --- codes ---------------------------------------------------------------------------------------------------

    def coded(self, codes: np.ndarray) -> bytes:
        """Codes (n, m) of rows, row by row."""
        encoder = Encoder()
        encoder.code(codes.astype(np.int32), self._model(0, self.product.parts, len(codes)))
        return encoder.finish()

    def decoded(self, data: bytes, count: int, where: str) -> np.ndarray:
        """Inverse of `coded`: (n, m) uint8; FormatError for other bytes."""
        decoder = Decoder(data)
        found = np.asarray(decoder.code(None, self._model(0, self.product.parts, count)))
        decoder.finish()
        return self._checked(found, where)

    def code_levels(self, coder: Any, codes: np.ndarray | None, levels: int, count: int, where: str) -> np.ndarray:
        """Code so many levels of rows, one after the other, with any coder: (n, k) uint8."""
        g = self.product.groups
        parts = [None if codes is None else codes[:, at : at + g] for at in range(0, levels * g, g)]
        return np.concatenate([self.code_level(coder, p, i, count, where) for i, p in enumerate(parts)], 1)

    def code_level(self, coder: Any, codes: np.ndarray | None, level: int, count: int, where: str) -> np.ndarray:
        """Code one level (n, G) of rows: uint8."""
        g = self.product.groups
        symbols = None if codes is None else codes.astype(np.int32)
        return self._checked(np.asarray(coder.code(symbols, self._model(level * g, g, count))), where)

    def _model(self, first: int, parts: int, count: int) -> TableModel:
        return TableModel(self.bank, np.arange(first, first + parts, dtype=np.int32)[None], 0, (count, parts))

    def _checked(self, found: np.ndarray, where: str) -> np.ndarray:
        if found.size and not 0 <= int(found.min()) <= int(found.max()) < self.product.entries:
            raise FormatError(f"{where} holds codes that no codebook has: it is corrupt")
        return found.astype(np.uint8)


def fingerprint(head: bytes) -> bytes:
    """First 8 bytes of a SHA-256 over what a file begins with: quantiser and frequencies."""
    return hashlib.sha256(head).digest()[:8]


def _bank(columns: Iterable[np.ndarray], entries: int) -> TableBank:
    counts = [np.bincount(column, minlength=entries) + 1e-3 for column in columns]
    return TableBank.from_histograms(counts, 0, _PRECISION, trim=False)


def turn(rotation: Tensor) -> Tensor:
    """The matrix of orthonormal columns nearest to one of 16-bit numbers; columns of zeros stay."""
    live = torch.nonzero(rotation.any(0)).flatten()
    out = torch.zeros(rotation.shape)
    if len(live):
        u, _, v = torch.linalg.svd(rotation[:, live].double(), full_matrices=False)
        out[:, live] = (u @ v).float()
    return out
