"""Entropy models: what a codec says about its integers, as integers by the time it is coded with.

Every model answers three questions: `encode(encoder, symbols)`, `decode(decoder)` and `bits(symbols)`; a
`Coder` asks the one that fits. Parameters may be arrays or torch tensors; decoded symbols come back as the
same kind. Nothing here turns floats into a decision about an interval, except the constructors named `from_*`
and `scale_index`, which say so: call those on the encoder's and the decoder's side only with parameters that
agree to the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import banks
from .contract import Model, Reader, Writer
from .dense import array_of, dense, to_numpy
from .errors import InputError
from .symbols import as_int32, flat
from .tables import TableBank, normalise

_ZERO = np.zeros(1, np.int32)


class TableModel(Model):
    """Symbols whose table is named one by one: symbol = offset + what the table says.

    Args:
        bank: the integer tables.
        index: integers 0..T-1, uint8 where T allows (fastest), of the symbols' shape or one that broadcasts
        to it.
        offset: integers added to each table's value, e.g. a predicted mean; int32, scalar or broadcastable.
        shape: the symbols' shape; by default that of index and offset together.
    """

    bank: TableBank

    def __init__(self, bank: TableBank, index: Any, offset: Any = 0, shape: tuple[int, ...] | None = None) -> None:
        self.bank = bank
        self.index = index = dense(index, "the index")
        self.offset = offset = dense(offset, "the offset")
        if shape is None:
            shape = tuple(np.shape(index))
            if not isinstance(offset, int) and (other := tuple(np.shape(offset))) != shape:
                shape = _together(shape, other)
        self.shape = tuple(shape)

    @property
    def _tensor(self) -> bool:
        return hasattr(self.index, "detach")

    def lowered(self) -> tuple[np.ndarray, np.ndarray]:
        """index (n,) uint8 or int32 and offset (1,) or (n,) int32, as the kernels read them."""
        index = self.index if type(self.index) is np.ndarray else to_numpy(self.index)
        if index.dtype != np.uint8 and index.dtype != np.int32:
            if index.dtype.kind not in "iub":
                raise InputError(f"a table index must be integer, not {index.dtype}")
            if index.dtype.itemsize >= 4 and index.size and not 0 <= int(index.min()) <= int(index.max()) < 1 << 31:
                raise InputError(f"a table index is outside the bank's {self.bank.num_tables} tables")
            index = index.astype(np.int32)
        if index.shape != self.shape:
            index = _spread(index, self.shape, "index")
        return flat(index), _offset(self.offset, self.shape)

    def encode(self, encoder: Writer, symbols: Any) -> None:
        encoder.table(symbols, self.bank, *self.lowered(), self.shape)

    def decode(self, decoder: Reader) -> Any:
        return _shaped(decoder.table(self.bank, *self.lowered()), self.shape, self._tensor)

    def bits(self, symbols: Any) -> Any:
        index, offset = (a.reshape(-1) for a in self.lowered())
        if not _is_float_tensor(symbols):
            return self.bank.ideal_bits(as_int32(symbols, self.shape) - offset.astype(np.int64), index)
        import torch

        # between integers the cost is interpolated, so the slope at a symbol is the difference of its
        # neighbours
        x = symbols.reshape(-1)
        low = torch.floor(x.detach())
        r = low.cpu().numpy().astype(np.int64) - offset
        costs = [torch.from_numpy(self.bank.costs(r + d, index)).to(x) for d in (0, 1)]
        return (costs[0] + (costs[1] - costs[0]) * (x - low)).sum()


class Factorized(TableModel):
    """One table a channel, the same at every position.

    Args:
        bank: tables; channel c is coded with table `first + c`.
        shape: the symbols' shape.
        axis: which axis counts the channels.
        first: the table of channel 0.
        tensor: give decoded symbols as torch tensors.
    """

    def __init__(
        self, bank: TableBank, shape: tuple[int, ...], axis: int = 0, first: int = 0, tensor: bool = False
    ) -> None:
        channels = shape[axis]
        if not 0 <= first <= first + channels <= bank.num_tables:
            raise InputError(f"{channels} channels from table {first} on need more than {bank.num_tables} tables")
        index = np.arange(first, first + channels).astype(np.uint8 if bank.num_tables <= 256 else np.int32)
        view = [1] * len(shape)
        view[axis] = channels
        super().__init__(bank, index.reshape(view), 0, tuple(shape))
        self._want_tensor = tensor

    @property
    def _tensor(self) -> bool:
        return self._want_tensor


class _Scaled(TableModel):
    family: str

    def __init__(
        self,
        index: Any = None,
        offset: Any = 0,
        *,
        scale: Any = None,
        profile: str = "default",
        shape: tuple[int, ...] | None = None,
    ) -> None:
        if (index is None) == (scale is None):
            raise InputError(f"{type(self).__name__} takes an index (to code) or a scale (to train), exactly one")
        self.scale = scale
        self._numbered = scale is None
        self._profile = profile
        super().__init__(banks.frozen_bank(self.family, profile), scale if index is None else index, offset, shape)

    def lowered(self) -> tuple[np.ndarray, np.ndarray]:
        if not self._numbered:
            self.index, self._numbered = scale_index(self.scale), True
        return super().lowered()

    def bits(self, symbols: Any) -> Any:
        if not _is_float_tensor(symbols):
            return super().bits(symbols)
        import torch

        if self.scale is not None:
            sigma = torch.as_tensor(self.scale)
        else:
            table = torch.tensor(banks.scales()).to(symbols)
            sigma = table[torch.as_tensor(self.index).long().to(symbols.device)]
        offset = torch.as_tensor(self.offset, device=symbols.device) if self.offset is not None else 0
        return float_bits(symbols - offset, sigma, self.family).sum()


class Gaussian(_Scaled):
    """Zero-mean Gaussians rounded to integers, by scale number: symbol = offset + round(y - mean).

    Args:
        index: 0..63, the number of the deviation in `banks.scales()`; or None.
        offset: integer added to every symbol (an integer mean); 0 when symbols are residuals of a float mean.
        scale: instead of index: a deviation, float. Its number is then decided in float: meant for training
        and rates.
        profile: "default" (12-bit tables), "fine" (14) or "max" (16).
        shape: the symbols' shape, by default that of index.
    """

    family = "gaussian"


class Laplace(_Scaled):
    """Zero-mean Laplacians by scale number; arguments as in `Gaussian`, scale is the deviation."""

    family = "laplace"


class Mixture(Model):
    """Gaussian mixtures in integers; the components lie along the last axis.

    Args:
        weights: (..., K) integers >= 0 that sum to 256.
        means: (..., K) integers: means in sixteenths, within +-2**19.
        scale: (..., K) integers 0..63: numbers of the deviations.
    """

    def __init__(self, weights: Any, means: Any, scale: Any) -> None:
        weights, means, scale = (dense(a, "a mixture") for a in (weights, means, scale))
        shapes = {tuple(np.shape(a)) for a in (weights, means, scale)}
        if len(shapes) != 1 or not (shape := next(iter(shapes))) or shape[-1] == 0:
            raise InputError(f"weights, means and scale must have one shape (..., K), not {sorted(shapes)}")
        self.weights, self.means, self.scale = weights, means, scale
        self.shape = shape[:-1]
        self._float: tuple[Any, Any, Any] | None = None

    @classmethod
    def from_float(cls, weights: Any, means: Any, scales: Any) -> Mixture:
        """Round float parameters onto the grid (weights are normalised); `bits` then uses the floats."""
        w, mu, scale = (array_of(a, "iuf", "a mixture").astype(np.float64) for a in (weights, means, scales))
        if w.ndim == 0 or w.shape[-1] == 0 or not (np.isfinite(w).all() and np.isfinite(mu).all() and (w >= 0).all()):
            raise InputError("a mixture has finite means, and weights >= 0 along the last axis")
        flat = w.reshape(-1, w.shape[-1])
        if not (flat.sum(1) > 0).all():
            raise InputError("the weights of a mixture are all zero")
        share = flat * (256.0 / flat.sum(1, keepdims=True))
        whole = np.floor(share).astype(np.int64)
        # the largest remainders take what rounding down left over
        order = np.argsort(np.argsort(whole - share, axis=1, kind="stable"), axis=1, kind="stable")
        whole += order < (256 - whole.sum(1, keepdims=True))
        mu = np.clip(np.rint(mu * 16), -(2**19), 2**19)
        parameters = [
            whole.reshape(w.shape).astype(np.int32),
            mu.astype(np.int32),
            scale_index(scale),
        ]
        if hasattr(weights, "detach"):
            import torch

            parameters = [torch.from_numpy(np.ascontiguousarray(p)) for p in parameters]
        model = cls(*parameters)
        model._float = (weights, means, scales)
        return model

    def _lowered(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        out = []
        for a in (self.weights, self.means, self.scale):
            a = to_numpy(a, "a mixture")
            if a.dtype.kind not in "iu":
                raise InputError(f"mixture parameters must be integers, not {a.dtype} (see Mixture.from_float)")
            if a.dtype.itemsize > 2 and a.size and max(int(a.max()), -int(a.min())) > 1 << 20:
                raise InputError("mixture parameters out of range: |mean| <= 2**19 sixteenths")
            out.append(flat(a.astype(np.int32, copy=False)).reshape(-1, a.shape[-1]))
        return out[0], out[1], out[2]

    def encode(self, encoder: Writer, symbols: Any) -> None:
        encoder.mixture(symbols, *self._lowered(), banks.phi_table(), self.shape)

    def decode(self, decoder: Reader) -> Any:
        out = decoder.mixture(*self._lowered(), banks.phi_table())
        return _shaped(out, self.shape, hasattr(self.weights, "detach"))

    def bits(self, symbols: Any) -> Any:
        if not _is_float_tensor(symbols):
            from .plain.mixture import ranges_mixture, windows

            x = as_int32(symbols, self.shape)
            parameters = self._lowered()
            phi = banks.phi_table()
            first, count = np.empty(x.size, np.int64), np.empty(x.size, np.int64)
            if windows(*parameters, phi.reach, first, count):
                raise InputError("mixture parameters out of range")
            pairs = np.empty(2 * x.size, np.uint32)
            escapes = ranges_mixture(x, *parameters, first, count, phi.phi, phi.rate, pairs)
            return float((24.0 - np.log2(pairs[1::2])).sum()) + 24.0 * escapes
        import torch

        if self._float is not None:
            w, mu, sigma = (torch.as_tensor(a) for a in self._float)
            w = w / w.sum(-1, keepdim=True)
        else:
            w, mu = (torch.as_tensor(to_numpy(a)).to(symbols) for a in (self.weights, self.means))
            w, mu = w / 256, mu / 16
            sigma = torch.tensor(banks.scales()).to(symbols)[torch.as_tensor(to_numpy(self.scale)).long()]
        return mixture_bits(symbols, w, mu, sigma).sum()


class Uniform(Model):
    """Integers lo..hi, all alike: raw bits if hi - lo + 1 is a power of two, else a table for the top."""

    def __init__(self, lo: int, hi: int, shape: tuple[int, ...], tensor: bool = False) -> None:
        if not -(2**31) <= lo <= hi < 2**31:
            raise InputError(f"a uniform range must lie within int32 and not be empty, not {lo}..{hi}")
        self.lo, self.hi, self.shape = int(lo), int(hi), tuple(shape)
        self._want_tensor = tensor
        self._count = self.hi - self.lo + 1
        self._bits = (self._count - 1).bit_length()
        self._raw = self._count == 1 << self._bits and self._bits <= 24
        self._bank: TableBank | None = None
        self._centre = 1 << 31 if self._bits == 32 else 0  # the table speaks of int32, so wide ranges are centred

    def _tables(self) -> TableModel:
        if self._bank is None:
            k = max(0, self._bits - 7)  # at most 128 entries: rounding their frequencies costs nothing to speak of
            last = (self._count - 1) >> k
            weights = np.full(last + 2, 1 << k, np.float64)
            weights[-2:] = self._count - (last << k), 0.0
            self._bank = TableBank([normalise(weights, 12)], [-(self._centre >> k)], [k])
        return TableModel(self._bank, np.zeros((1,) * max(1, len(self.shape)), np.uint8), 0, self.shape)

    def encode(self, encoder: Writer, symbols: Any) -> None:
        if self._raw:
            if self._bits:
                encoder.raw(symbols, self._bits, self.lo, self.shape)
            elif (as_int32(symbols, self.shape) != self.lo).any():
                raise InputError(f"a symbol lies outside {self.lo}..{self.hi}")
            return
        x = as_int32(symbols, self.shape).astype(np.int64).reshape(self.shape)
        if x.size and not self.lo <= int(x.min()) <= int(x.max()) <= self.hi:
            raise InputError(f"a symbol lies outside {self.lo}..{self.hi}")
        model = self._tables()
        encoder.table((x - self.lo - self._centre).astype(np.int32), model.bank, *model.lowered(), self.shape)

    def decode(self, decoder: Reader) -> Any:
        count = math.prod(self.shape)
        if self._raw:
            out = decoder.raw(count, self._bits, self.lo) if self._bits else np.full(count, self.lo, np.int32)
        else:
            model = self._tables()
            out = decoder.table(model.bank, *model.lowered())
            out = (out.astype(np.int64) + self._centre + self.lo).astype(np.int32)
        return _shaped(out, self.shape, self._want_tensor)

    def bits(self, symbols: Any) -> Any:
        total = math.prod(self.shape) * math.log2(self._count)
        return symbols.sum() * 0.0 + total if _is_float_tensor(symbols) else total


def scale_index(scale: Any) -> Any:
    """The number (0..63) of the deviation nearest in log to each float scale; uint8, array or tensor as
    given.

    A float decision: in a codec it must come from integers instead (see `exact`).
    """
    sigma = array_of(scale, "iuf", "a deviation").astype(np.float64)
    if np.isnan(sigma).any():
        raise InputError("a deviation is NaN")
    s = banks.scales()
    edges = np.sqrt(s[:-1] * s[1:])
    index = np.asarray(np.searchsorted(edges, sigma)).astype(np.uint8)
    if hasattr(scale, "detach"):
        import torch

        return torch.from_numpy(index)
    return index


def float_bits(x: Any, sigma: Any, family: str = "gaussian") -> Any:
    """Differentiable -log2 p of each x under a zero-mean distribution of deviation sigma, integrated over x
    +- 1/2.

    Args:
        x: float tensor. sigma: float tensor that broadcasts; clamped to the tables' range, gradients pass the
        lower end.
        family: "gaussian" or "laplace".
    """
    import torch

    check_float(x, "x")
    check_float(sigma, "sigma")
    _together(tuple(x.shape), tuple(sigma.shape), "x", "sigma")
    x, sigma = x.to(_wide(x)), sigma.to(_wide(sigma))
    s = banks.scales()
    sigma = sigma.clamp(max=float(s[-1]))
    sigma = sigma + (float(s[0]) - sigma).clamp(min=0).detach()
    t = x.abs()
    if family == "gaussian":
        p = torch.special.ndtr((0.5 - t) / sigma) - torch.special.ndtr((-0.5 - t) / sigma)
    else:
        b = sigma / math.sqrt(2)
        inner = 1 - torch.exp(-0.5 / b) * torch.cosh(t.clamp(max=0.5) / b)
        outer = torch.exp(-t.clamp(min=0.5) / b) * torch.sinh((0.5 / b).clamp(max=30.0))
        p = torch.where(t < 0.5, inner, outer)
    # An escape costs some 26 bits and grows with the logarithm; so a pull remains where p has no gradient
    # left.
    return -torch.log2(p + 2.0**-26) + torch.log1p((t / sigma - 6).clamp(min=0))


def mixture_bits(x: Any, weights: Any, means: Any, sigma: Any) -> Any:
    """Differentiable -log2 p of each x under a Gaussian mixture, integrated over x +- 1/2.

    Args:
        x: float tensor (...). weights (they sum to 1), means, sigma: float tensors (..., K); deviations are clamped to
        the tables' range.
    """
    import torch

    x, weights, means, sigma = (a.to(_wide(a)) for a in (x, weights, means, sigma))
    s = banks.scales()
    sigma = sigma.clamp(float(s[0]), float(s[-1]))
    t = (x[..., None] - means).abs()
    p = weights * (torch.special.ndtr((0.5 - t) / sigma) - torch.special.ndtr((-0.5 - t) / sigma))
    # as in `float_bits`: a pull remains where no component has a gradient left
    return -torch.log2(p.sum(-1) + 2.0**-26) + torch.log1p(((t / sigma).amin(-1) - 6).clamp(min=0))


def _wide(x: Any) -> Any:
    """The dtype that probabilities of a float tensor are computed in: 16 bits do not hold them."""
    import torch

    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _offset(offset: Any, shape: tuple[int, ...]) -> np.ndarray:
    if type(offset) is int:
        return _ZERO if offset == 0 else np.array([offset], np.int32)
    a = to_numpy(offset, "an offset")
    if a.dtype.kind not in "iu":
        raise InputError(
            f"an offset must be integer, not {a.dtype}: code round(y - mean) and add a float mean afterwards"
        )
    if a.dtype != np.int32:
        if a.size and a.dtype.itemsize >= 4 and not -(2**31) <= int(a.min()) <= int(a.max()) < 2**31:
            raise InputError("an offset is beyond int32")
        a = a.astype(np.int32)
    if a.size == 1:
        return flat(a)
    if a.shape != shape:
        a = _spread(a, shape, "offset")
    return flat(a)


def _together(
    shape: tuple[int, ...], other: tuple[int, ...], one: str = "an index", two: str = "an offset"
) -> tuple[int, ...]:
    if shape == other:
        return shape
    try:
        return np.broadcast_shapes(shape, other)
    except ValueError:
        raise InputError(f"{one} of shape {shape} and {two} of shape {other} do not fit each other") from None


def _spread(a: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        return np.broadcast_to(a, shape)
    except ValueError:
        raise InputError(f"the {what} has shape {a.shape}, the symbols {shape}") from None


def _shaped(out: np.ndarray, shape: tuple[int, ...], tensor: bool) -> Any:
    out = out.reshape(shape)
    if tensor:
        import torch

        return torch.from_numpy(out)
    return out


def check_float(x: Any, what: str) -> None:
    """Raises InputError unless this is a float tensor with values."""
    dense(x, what)
    if not _is_float_tensor(x):
        kind = f"{x.dtype}" if hasattr(x, "dtype") else type(x).__name__
        raise InputError(f"{what} must be a float tensor, not {kind}")


def _is_float_tensor(symbols: Any) -> bool:
    return hasattr(symbols, "detach") and symbols.is_floating_point() and symbols.element_size() > 1
