"""From a goal to chunks: which transform, which step, and whether what will be decoded keeps the promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, log2
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...entropy.errors import InputError
from ...kernels.hadamard import block_size
from ...kernels.parallel import parallel
from ...kernels.row_quantiser import quantise_rows
from ..base import Compressed
from . import blocks, maps, transforms
from . import profile as profiles
from . import rows as rows_
from .blocks import Kept
from .layout import CORRECTED, MAPS, MEAN, PROFILE, ROWS, SIDE, Params, View, bits_of
from .profile import Profile
from .transforms import HADAMARD, IDENTITY, LINEAR, Transform

_SAMPLE_ROWS, _SAMPLE_VALUES = 1024, 1 << 17
_NOISE = 2.0**-18  # of the largest magnitude: how far values decoded on two machines may lie apart
_COARSE = (1.0, 1.5, 2.0)  # steps to try under an error bound, in units of the bound
_TRIES = 8
_FINE = 4  # steps of the grid that a budget of bits is searched on, to a factor of two
_FINEST = 26 * _FINE  # the last of them, 2**-24 of the largest magnitude: float32 has no finer values
_PROMISING = 2  # attempts whose streams are compared under a budget of bits
_TINY = 1e-37  # goals below are beyond float32 arithmetic
_MEAN_BITS = 26.0  # that a channel's mean takes
_KEPT = 1 << 22  # values: transforms of larger tensors are computed block by block, each time
_WORTH = 32  # a map has at least this many samples
# a step -> what makes the stream, and the mean squared error that decoding it will have
Attempt = Callable[[float], tuple[Callable[[], Compressed], float]]


@dataclass(frozen=True)
class Goal:
    """What is promised: "lossless", "max_error", "relative_error", "nmse", "mse", "bits" or "step"; and how much."""

    kind: str
    value: float = 0.0

    @classmethod
    def of(
        cls,
        max_error: float | None,
        relative_error: float | None,
        nmse: float | None,
        bits: float | None,
        lossless: bool,
        profiled: bool,
    ) -> Goal:
        """The one goal that was given; raises InputError for several, or for a value that is no goal."""
        given = {"max_error": max_error, "relative_error": relative_error, "nmse": nmse, "bits": bits}
        given = {k: v for k, v in given.items() if v is not None}
        if len(given) + bool(lossless) > 1:
            names = [*given, *(["lossless"] if lossless else [])]
            raise InputError(f"{' and '.join(names)} exclude each other: give one of them")
        for kind, value in given.items():
            if not isinstance(value, (int, float, np.floating)) or not 0 < float(value) < inf:
                raise InputError(f"{kind} is {value!r}; a number above 0 is needed (lossless=True keeps every bit)")
            return cls(kind, float(value))
        return cls("lossless" if lossless or not profiled else "step")

    def resolved(self, x: Tensor, step: float) -> Goal:
        """Relative goals in the units of the tensor (N, D)."""
        if self.kind == "relative_error":
            return Goal("max_error", self.value * float(x.abs().max()))
        if self.kind == "nmse":
            return Goal("mse", self.value * transforms.variance(x))
        return Goal("step", step) if self.kind == "step" else self


@dataclass(frozen=True, eq=False)
class Candidate:
    """A transform under trial: what it costs to send, and the components of some rows."""

    transform: Transform
    synthesis: Tensor | None  # float64, of a basis that has to be sent along
    energy: Tensor | None
    sample: Tensor  # (n, D)

    @cached_property
    def components(self) -> Any:
        return np.ascontiguousarray(self.transform.forward(self.sample).numpy())

    def overhead(self, step: float, profile: Profile | None) -> float:
        """Bits of what is sent beside the symbols."""
        d = self.sample.shape[1]
        brought = None if profile is None else profile.mean
        total = 0.0 if self.transform.mean is brought else _MEAN_BITS * d
        if self.synthesis is not None and self.energy is not None:
            integers, _ = transforms.embed_precision(self.synthesis, self.energy, step)
            deviation = np.sqrt((integers.astype(np.float64) ** 2).mean(1)) if len(integers) else np.zeros(0)
            total += float((np.log2(4.13 * np.maximum(deviation, 0.3)) * d + 38).sum())
        return total

    def trial(self, step: float, exact: bool = False) -> tuple[float, Any, Any]:
        """Bits a row, and the rows' errors (n, D), of the sample under a step."""
        y = self.components
        n, k = y.shape
        none, zeros = np.full(n, -1, np.int32), np.zeros(k, np.float32)
        dead = 0.0 if exact else rows_.DEAD
        symbols, recon, _ = quantise_rows(y, none, zeros, step, dead, rows_.centres(dead), None)
        back = self.transform.inverse(torch.from_numpy(recon), self.sample.shape[1])
        return float(rows_.bits_of(symbols).sum()) / n, (self.sample - back).numpy(), symbols


class Job:
    """The encoding of one tensor.

    Args:
        profile: or None.
        data: (N, D) rows in the tensor's dtype. values: the same in float32, zeros for what is not finite.
        special: (N, D) bool, what is kept bit by bit in any case; or None.
        top: the largest magnitude.
    """

    def __init__(
        self, profile: Profile | None, data: Tensor, values: Tensor, special: Tensor | None, view: View, goal: Goal,
        top: float,
    ) -> None:  # fmt: skip
        self.profile, self.data, self.x, self.special = profile, data, values, special
        self.view, self.goal, self.top = view, goal, top
        # of the transform tried last: what it gives, unless that is large, and which rows of each block predict which
        self.tried: Transform | None = None
        self.y: Tensor | None = None
        self.references: dict[int, tuple[Any, Any]] = {}
        self.limit = float(torch.finfo(data.dtype).max)
        every = max(1, values.shape[0] // min(_SAMPLE_ROWS, max(1, _SAMPLE_VALUES // values.shape[1])))
        self.sample = values[::every].contiguous()

    def run(self, transform: str) -> Compressed | None:
        """The shortest stream found, None where the goal asks for keeping every bit."""
        if self.goal.value <= _TINY:
            # the tensor is constant, or nearly: its first row may say it all
            first = Candidate(Transform(IDENTITY, self.x[0].clone()), None, None, self.sample)
            finish, error = self._rows(first, 1.0, True)
            return finish() if error == 0 and self.profile is None else None
        choices: list[tuple[float, float, Callable[[], Compressed | None]]] = []
        candidates = self._candidates(transform)
        if self.profile is not None and self.goal.kind == "step":
            return self._encode_rows(candidates[0], self.goal.value)
        attempts: list[tuple[float, float, Attempt]] = []
        for candidate in candidates:
            cost, step = self._estimate(candidate)
            choices.append((cost, step, lambda c=candidate, s=step: self._encode_rows(c, s)))
            attempts.append((cost, step, lambda s, c=candidate: self._rows(c, s)))
        spatial = len(self.view.shape) >= 2 and min(self.view.shape[-2:]) >= 2
        if transform == "map" and not spatial:
            raise InputError(f"a map has two spatial axes at the end; the tensor has shape {self.view.shape}")
        if transform == "map" or (
            transform == "auto" and len(self.view.shape) >= 3 and spatial and self.view.shape[-1] >= 4
            and self.view.shape[-2] >= 4 and self.profile is None and self.x.numel() >= _WORTH
        ):  # fmt: skip
            planes = _Planes(self)
            cost, step = planes.estimate()
            choices.append((cost, step, lambda: planes.encode(step)))
            attempts.append((cost, step, planes._attempt))
        if self.goal.kind == "bits":
            return finest(attempts, self.top, self.goal.value * self.x.numel())
        return min(choices, key=lambda c: c[0])[2]()

    # --- which transform -----------------------------------------------------------------------------------------

    def _candidates(self, name: str) -> list[Candidate]:
        n, d = self.x.shape
        if name == "map":
            return []
        if self.profile is not None:
            return [Candidate(self._centred(self.profile), None, None, self.sample)]
        out = []
        if name in ("auto", "identity"):
            out.append(Candidate(Transform(IDENTITY), None, None, self.sample))
            if name == "auto" and n >= 8:
                out.append(Candidate(Transform(IDENTITY, self._mean()), None, None, self.sample))
        if name == "hadamard" or (name == "auto" and block_size(d) >= 8):
            mean = self._mean() if n >= 8 else None
            out.append(Candidate(Transform(HADAMARD, mean), None, None, self.sample))
        if name == "klt" and not 2 <= d <= transforms.MAX_FITTED:
            raise InputError(f"a KLT is fitted to 2..{transforms.MAX_FITTED} channels, not {d}")
        # a basis takes some D bits a component: it has no chance with fewer rows than this
        if name == "klt" or (name == "auto" and 2 <= d <= transforms.MAX_FITTED and 2 * n >= d):
            mean, second = transforms.covariance(self.x)
            synthesis, energy = transforms.fit(mean, second)
            whole = Transform(LINEAR, mean.float(), synthesis.float())
            out.append(Candidate(whole, synthesis, energy, self.sample))
        return out

    def _mean(self) -> Tensor:
        return self.x.mean(0)

    def _centred(self, profile: Profile) -> Transform:
        """The profile's transform, about the tensor's own mean where that saves more bits than sending it takes."""
        own, n = profile.transform, self.x.shape[0]
        if n < 64:
            return own
        mean = self._mean()
        away = (mean - profile.mean) @ own.analysis_matrix
        step = self.goal.value if self.goal.kind == "step" else profile.step
        power = torch.exp(profile.width.float() * (2 * profiles.WIDTH_UNIT)) + step * step / 12
        saved = n / 2 * float(torch.log2(1 + away.square() / power).sum())
        return own.recentred(mean) if saved > _MEAN_BITS * len(mean) else own

    def _estimate(self, c: Candidate) -> tuple[float, float]:
        """(cost, step): what is to be small, and the step to begin with."""
        n, goal = self.x.shape[0], self.goal

        def total(step: float) -> float:
            return c.trial(step)[0] * n + c.overhead(step, self.profile)

        if goal.kind == "step":
            return total(goal.value), goal.value
        if goal.kind == "mse":
            step = self._step_for_mse(c, goal.value)
            return total(step), step
        if goal.kind == "bits":
            step = self._step_for_bits(total, goal.value * self.x.numel())
            return float((c.trial(step)[1] ** 2).mean()), step
        if c.transform.kind == IDENTITY:
            step = 2 * (goal.value - self._noise(c.transform))
            if step <= 0:
                return inf, goal.value
            return c.trial(step, True)[0] * n + c.overhead(step, self.profile), step
        room = goal.value - self._noise(c.transform)
        if room < goal.value / 2:
            return inf, goal.value
        costs = []
        for factor in _COARSE:
            bits, error, _ = c.trial(factor * room)
            r = np.rint(error / np.float32(2 * room)).astype(np.int32)
            costs.append(
                (bits * n + c.overhead(factor * room, self.profile) + rows_.bits_of(r.T).sum() * n / len(r), factor)
            )
        cost, factor = min(costs)
        return float(cost), factor * room

    def _noise(self, transform: Transform) -> float:
        """How far a value may lie on another machine from where it lies here."""
        # products of matrices are summed in any order; one product and one sum are the same everywhere
        return self.top * (_NOISE if transform.kind != IDENTITY else 2.0**-22)

    def _step_for_mse(self, c: Candidate, target: float) -> float:
        step = (12 * max(target, 1e-38)) ** 0.5
        for _ in range(_TRIES):
            got = float((c.trial(step)[1].astype(np.float64) ** 2).mean())
            if got <= 0:
                step *= 2
            elif abs(got / target - 1) < 0.01:
                break
            else:
                step *= min(4.0, max(0.25, (target / got) ** 0.6))
        return step

    def _step_for_bits(self, total: Callable[[float], float], target: float) -> float:
        low, high = self.top * 2.0**-22, 4 * self.top
        for _ in range(14):
            step = (low * high) ** 0.5
            low, high = (step, high) if total(step) > target else (low, step)
        return high

    # --- rows ----------------------------------------------------------------------------------------------------

    def _encode_rows(self, c: Candidate, step: float) -> Compressed | None:
        goal = self.goal
        if goal.kind == "max_error":
            room = goal.value - self._noise(c.transform)
            if room < goal.value / 2:
                return None
            exact = c.transform.kind == IDENTITY
            return self._rows(c, step, exact, 0.0 if exact else 2 * room)[0]()
        if goal.kind == "step":
            return self._rows(c, step)[0]()
        return meet_mse(lambda s: self._rows(c, s), step, goal.value)

    def _rows(
        self, c: Candidate, step: float, exact: bool = False, unit: float = 0.0
    ) -> tuple[Callable[[], Compressed], float]:
        """Quantise under a step; a function that makes the stream, and the error that decoding it will have."""
        step, unit = float(np.float32(step)), float(np.float32(unit))
        d, transform, side = self.x.shape[1], c.transform, b""
        flags = MEAN * (transform.mean is not None) | CORRECTED * bool(unit)
        offset, prior = 0, None
        if self.profile is not None:
            if transform.mean is not self.profile.mean:
                side = transforms.pack(transform, None, None)
                flags |= MEAN | SIDE
            else:
                flags &= ~MEAN
            flags, offset = flags | PROFILE, max(-32768, min(32767, profiles.step_offset(step)))
            prior = self.profile.levels(offset)
        else:
            integers = units = None
            if c.synthesis is not None and c.energy is not None:
                integers, units = transforms.embed_precision(c.synthesis, c.energy, step)
                coarse = torch.from_numpy(integers.astype(np.float32) * units[:, None])
                transform = Transform(LINEAR, transform.mean, coarse)
            side = transforms.pack(transform, integers, units)
            flags |= SIDE * bool(side)
        block = self.view.block
        if transform is not self.tried:  # a profile's is the same at every step
            self.tried, self.references = transform, {}
            self.y = transform.forward(self.x).contiguous() if self.x.numel() <= _KEPT else None
        parts = list(zip(self.x.split(block), self.data.split(block)))
        starts = range(0, self.x.shape[0], block)
        checked = self.goal.kind != "step" or self.special is not None
        workers = max(1, torch.get_num_threads() // len(parts))

        def one(item: Any) -> tuple[Any, Any, Kept | None, float]:
            start, (x, data) = item
            part = transform.forward(x).contiguous() if self.y is None else self.y[start : start + block]
            rows, recon = rows_.quantise(
                part.numpy(), step, exact, part.shape[1] > 1, prior, workers, checked, self.references.get(start)
            )
            rows = replace(rows, symbols=_narrow(rows.symbols))
            self.references[start] = rows.ref, rows.alpha
            if not checked:
                return rows, None, None, 0.0
            back = transform.inverse(torch.from_numpy(recon), d)
            r = None
            if unit:
                r = torch.round((x - back) / unit)
                back = back + r * unit
                r = _narrow(r.to(torch.int32).numpy())
            kept, error = self.keep(back, data, x, start, self._noise(transform))
            return rows, r, kept, error

        done = list(parallel(one, list(zip(starts, parts))))

        def finish() -> Compressed:
            def code(item: Any) -> bytes:
                rows, r, kept, _ = item
                sections = [blocks.encode_rows(replace(rows, symbols=rows.symbols.astype(np.int32)), prior)]
                if r is not None:
                    sections.append(blocks.encode_corrections(r.astype(np.int32)))
                return blocks.join(kept, *sections)

            params = Params(ROWS, transform.kind, flags, self.view.axis, offset, block, step, unit)
            return Compressed(params.pack(), [side] * bool(side) + list(parallel(code, done)))

        return finish, sum(item[3] for item in done) / self.x.numel()

    def keep(self, back: Tensor, data: Tensor, x: Tensor, start: int, noise: float) -> tuple[Kept | None, float]:
        """Which values of a block to keep bit by bit, and the squared error of the others."""
        value = back.clamp(-self.limit, self.limit)
        out = value.to(data.dtype).float()
        bad = None if self.special is None else self.special[start : start + len(data)]
        if self.goal.kind == "max_error":
            near = (x.double() - out.double()).abs() > self.goal.value
            if data.dtype != torch.float32:  # float noise may tip a value over to its neighbour
                for side in (-noise, noise):
                    tipped = (back + side).clamp(-self.limit, self.limit).to(data.dtype).double()
                    near |= (x.double() - tipped).abs() > self.goal.value
            bad = near if bad is None else bad | near
        error = x - out
        if bad is not None:
            error = error.masked_fill(bad, 0.0)
        total = float(torch.linalg.vecdot(error, error).double().sum())
        if bad is None or not bool(bad.any()):
            return None, total
        at = torch.nonzero(bad.reshape(-1)).reshape(-1).numpy()
        return Kept(at, bits_of(data).reshape(-1)[at]), total


def _narrow(symbols: Any) -> Any:
    """Integers in the smallest type that holds them, for as long as they wait to be coded."""
    most = int(np.abs(symbols).max(initial=0))
    return symbols.astype(np.int8 if most < 128 else np.int16 if most < 32768 else np.int32, copy=False)


def meet_mse(attempt: Callable[[float], tuple[Callable[[], Compressed], float]], step: float, target: float) -> Any:
    """The stream with the widest step found that keeps to a mean squared error; None where there is none."""
    best = None
    for _ in range(_TRIES):
        finish, got = attempt(step)
        if got <= target and (best is None or step > best[0]):
            best = step, finish
        if 0.985 * target <= got <= target:
            break
        factor = (0.995 * target / got) ** 0.5 if got > 0 else 2.0
        factor = min(4.0, max(0.25, factor))
        if got <= target and (factor < 1.002 or best is None):
            break
        step *= factor
    return None if best is None else best[1]()


def bits_used(packed: Compressed) -> float:
    """Of the whole stream: chunks, their index, header."""
    return 8.0 * (sum(map(len, packed.chunks)) + 8 * len(packed.chunks) + 80)


def finest(attempts: list[tuple[float, float, Attempt]], top: float, target: float) -> Compressed:
    """The stream of the least error found that takes at most so many bits.

    Steps lie on a grid that does not depend on the target, so that a larger one never finds less; from where the
    estimate says, the search goes to the finest step whose stream fits.

    Args:
        attempts: what is tried: (estimated error, step to begin with, the attempt).
        top: the largest magnitude: the coarsest step is four times it.
    """
    best: tuple[float, Compressed] | None = None
    tried, top = 0, top or 1.0  # where all is zero any step does
    for _, step, attempt in sorted(attempts, key=lambda a: a[0]):
        found: dict[int, bool] = {}

        def fits(i: int, attempt: Attempt = attempt, found: dict[int, bool] = found) -> bool:
            nonlocal best
            if i not in found:
                finish, error = attempt(4 * top * 2.0 ** (-i / _FINE))
                packed = finish()
                found[i] = bits_used(packed) <= target
                if found[i] and (best is None or error < best[0]):
                    best = error, packed
            return found[i]

        at = min(_FINEST, max(0, round(_FINE * log2(4 * top / max(step, 1e-37)))))
        low, high, stride = -1, _FINEST + 1, 1  # a step that fits (-1: none known) and one that does not
        while high - low > 1:
            if fits(at):
                low = at
            else:
                high = at
            if low < 0 or high > _FINEST:  # not yet between two
                at = max(0, high - stride) if low < 0 else min(_FINEST, low + stride)
                stride *= 2
            else:
                at = (low + high) // 2
        tried += low >= 0
        if tried == _PROMISING:
            break
    if best is None:
        raise InputError(f"bits: {target:.0f} bits for the whole tensor are fewer than the shortest stream takes")
    return best[1]


class _Planes:
    """The encoding of a tensor as maps."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.view = View.of_shape(job.view.shape, job.view.axis, True, False)
        tensor = job.view.tensor(job.data, None)
        self.data = self.view.rows(tensor).contiguous()
        self.x = self.view.rows(job.view.tensor(job.x, None)).contiguous()
        self.special = None
        if job.special is not None:
            self.special = self.view.rows(job.view.tensor(job.special, None)).contiguous()
        self.exact = job.goal.kind == "max_error"

    def _symbols(self, x: Tensor, step: float) -> Tensor:
        size = (x.abs() / step + (0.5 if self.exact else 0.5 - rows_.DEAD)).floor().clamp_max(2.0**30)
        return torch.copysign(size, x).to(torch.int32)

    def _shift(self, x: Tensor, q: Tensor, step: float) -> float:
        """How far below the symbols, on average, their values lie."""
        total, count = 0.0, 0
        for values, symbols in zip(x.split(self.view.block), q.split(self.view.block)):
            there = symbols != 0
            total += float((symbols.abs() - values.abs() / step)[there].double().sum())
            count += int(there.sum())
        if self.exact or not count:
            return 0.0
        return float(np.float32(min(0.5, max(0.0, total / count))))

    def _mse(self, x: Tensor, step: float) -> float:
        q = self._symbols(x, step)
        return float((x - dequantise_map(q, step, self._shift(x, q, step))).double().square().mean())

    def _sample(self) -> Tensor:
        count = max(1, min(len(self.x), _SAMPLE_VALUES // self.view.channels))
        return self.x[:: max(1, len(self.x) // count)][:count]

    def _bits(self, step: float) -> float:
        part = self._sample()
        return 8.0 * len(maps.encode(self._block(self._symbols(part, step)))) / part.numel() * self.x.numel()

    def _block(self, q: Tensor) -> Any:
        return q.reshape(-1, *self.view.shape[-2:]).numpy()

    def estimate(self) -> tuple[float, float]:
        goal = self.job.goal
        if goal.kind == "max_error":
            step = 2 * (goal.value - self.job.top * 2.0**-22)
            return (self._bits(step), step) if step > 0 else (inf, goal.value)
        part = self._sample()
        if goal.kind == "mse":
            step = (12 * max(goal.value, 1e-38)) ** 0.5
            for _ in range(_TRIES):
                got = self._mse(part, step)
                if got > 0 and abs(got / goal.value - 1) < 0.01:
                    break
                step *= min(4.0, max(0.25, (goal.value / got) ** 0.6)) if got > 0 else 2.0
            return self._bits(step), step
        if goal.kind == "step":
            raise InputError("maps need a goal: max_error, nmse, bits or lossless")
        step = self.job._step_for_bits(self._bits, goal.value * self.x.numel())
        return self._mse(part, step), step

    def encode(self, step: float) -> Compressed | None:
        goal = self.job.goal
        if goal.kind == "max_error":
            return None if step <= goal.value else self._attempt(step)[0]()
        return meet_mse(self._attempt, step, goal.value)

    def _attempt(self, step: float) -> tuple[Callable[[], Compressed], float]:
        step = float(np.float32(step))
        block = self.view.block
        q = torch.empty(self.x.shape, dtype=torch.int32)
        for part, out in zip(self.x.split(block), q.split(block)):
            out.copy_(self._symbols(part, step))
        shift = self._shift(self.x, q, step)
        job, kept, error = self.job, [], 0.0
        job_special, job.special = job.special, self.special
        for start in range(0, len(self.x), block):
            part = slice(start, start + block)
            back = dequantise_map(q[part], step, shift)
            k, e = job.keep(back, self.data[part], self.x[part], start, job.top * 2.0**-22)
            kept.append(k)
            error += e
        job.special = job_special

        def finish() -> Compressed:
            def code(item: Any) -> bytes:
                k, part = item
                return blocks.join(k, maps.encode(self._block(part)))

            params = Params(MAPS, IDENTITY, 0, self.view.axis, 0, block, step, 0.0, shift)
            return Compressed(params.pack(), list(parallel(code, list(zip(kept, q.split(block))))))

        return finish, error / self.x.numel()


def dequantise_map(q: Tensor, step: float, shift: float) -> Tensor:
    """Symbols of a map to values: each magnitude less a shift, in steps."""
    return (q.float() - q.sign().float() * shift) * step
