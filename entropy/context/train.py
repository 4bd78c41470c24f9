"""Training one step's network in floating point, and rounding it to integers.

Works on plain arrays: inputs a (F, n), as the taps read them, and the symbols (n,) to be predicted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import net

# scale class k stands for the logistic scale exp(CLASS_LOW + k CLASS_STEP)
CLASS_LOW, CLASS_STEP, CLASSES = -4.2, 0.2, 41
LEARNING_RATE = 2.5e-2


def pursue(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], count: int) -> list[int]:
    """Orthogonal matching pursuit: the rows of x (F, n) that together best explain y (n,)."""
    x = x - x.mean(1, keepdims=True)
    x /= x.std(1, keepdims=True) + 1e-3
    y = y - y.mean()
    gram, b = (x @ x.T).astype(np.float64) / y.size, (x @ y).astype(np.float64) / y.size
    chosen: list[int] = []
    rest = b.copy()
    for _ in range(min(count, x.shape[0])):
        score = np.abs(rest)
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        w = np.linalg.solve(gram[np.ix_(chosen, chosen)] + 1e-3 * np.eye(len(chosen)), b[chosen])
        rest = b - gram[:, chosen] @ w
    return chosen


def ridge(x: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Weights (F + 1,) of the least squares fit of y to the rows of x and a constant."""
    x1 = np.concatenate([x, np.ones((1, x.shape[1]), np.float32)])
    gram = (x1 @ x1.T).astype(np.float64)
    gram[np.diag_indices_from(gram)] += 1e-3 * x1.shape[1]
    return np.linalg.solve(gram, (x1 @ y.astype(np.float32)).astype(np.float64))


def train(
    a: npt.NDArray[np.float32], symbols: npt.NDArray[np.int32], hidden: int, opt: Any, rng: Any
) -> tuple[dict[str, npt.NDArray[np.float64]], float]:
    """Minimise the code length under a discretised mixture of two logistics about one mean.

    Returns the float parameters in terms of the raw inputs (w1, b1, wl, w2, b) and the bits a symbol.
    """
    n, f = symbols.size, a.shape[0]
    centre, spread = a.mean(1), a.std(1) + 0.5
    x = np.ascontiguousarray(((a - centre[:, None]) / spread[:, None]).T)
    y = symbols.astype(np.float32)
    start = ridge(a, symbols)
    miss = symbols - start[:-1] @ a - start[-1]
    width = float(miss.std()) + 0.1  # the network says the mean in units of this, so one learning rate suits all
    net = _FloatNet(f, hidden, width)
    bound = 1 / max(1, f) ** 0.5
    net.w1[:] = rng.uniform(-bound, bound, (f, hidden))
    net.b1[:] = rng.uniform(-bound, bound, hidden)
    net.wl[:, 0] = start[:-1] * spread / width
    net.b[:] = (start[-1] + start[:-1] @ centre) / width, np.log(0.4 * width)
    net.tail[:] = -3.0, 1.2
    # coarse grids have few symbols and little weight in the whole
    steps = max(50, int(opt.steps * min(1.0, max(0.4, n / opt.samples))))
    first, second = np.zeros_like(net.all), np.zeros_like(net.all)
    with np.errstate(over="ignore"):
        for i in range(steps):
            rows = rng.integers(0, n, min(opt.batch, n))
            net.descend(x[rows], y[rows])
            first += 0.1 * (net.slope - first)  # Adam (Kingma & Ba, 2015)
            second += 0.001 * (net.slope**2 - second)
            root = np.sqrt(second / (1 - 0.999 ** (i + 1))) + 1e-8
            lr = LEARNING_RATE * min(1.0, (steps - i) / steps * 1.5, (i + 1) / 30)
            net.all -= np.float32(lr / (1 - 0.9 ** (i + 1))) * first / root
        cost = net.descend(x[:20000], y[:20000])
    w1, b1, wl, w2, b = (p.astype(np.float64) for p in (net.w1, net.b1, net.wl, net.w2, net.b))
    unit = np.array([width, 1.0])
    w1, wl, w2, b = w1.T / spread, wl.T * unit[:, None] / spread, w2.T * unit[:, None], b * unit
    return {"w1": w1, "b1": b1 - w1 @ centre, "wl": wl, "w2": w2, "b": b - wl @ centre}, cost


class _FloatNet:
    """A network that is trained, its parameters in one vector `all` and their slopes in `slope`."""

    def __init__(self, inputs: int, hidden: int, width: float) -> None:
        shapes = [(inputs, hidden), (hidden,), (inputs, 2), (hidden, 2), (2,), (2,)]
        ends = np.cumsum([int(np.prod(s)) for s in shapes])
        self.width, self.all = np.float32(width), np.zeros(ends[-1], np.float32)
        self.slope = np.zeros_like(self.all)
        self.w1, self.b1, self.wl, self.w2, self.b, self.tail = _parts(self.all, ends, shapes)
        self._slopes = _parts(self.slope, ends, shapes)

    def descend(self, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> float:
        """Bits a symbol y (n,) of inputs x (n, F); sets `slope`."""
        h = np.maximum(x @ self.w1 + self.b1, 0)
        mean, said = (x @ self.wl + h @ self.w2 + self.b).T
        scale = np.clip(said, -4.5, 4.5)
        away = y - self.width * mean
        d = -np.abs(away)
        share, more = _sigmoid(self.tail[0]), _sigmoid(self.tail[1])
        p, by_d, by_scale, each, by_more = 0.0, 0.0, 0.0, [], 0.0
        # the wider of the two comes last, and leaves its slope in `by_more`
        for weight, wider in ((1 - share, np.float32(0)), (share, np.log1p(np.exp(self.tail[1])))):
            k = np.exp(-scale - wider)
            above, below = _sigmoid((d + np.float32(0.5)) * k), _sigmoid((d - np.float32(0.5)) * k)
            each.append(above - below)
            up, down = above * (1 - above), below * (1 - below)
            p = p + weight * each[-1]
            by_d = by_d + weight * k * (up - down)
            by_more = -weight * k * (up * (d + np.float32(0.5)) - down * (d - np.float32(0.5)))
            by_scale = by_scale + by_more
        gain = np.where(p > 1e-7, -1 / (np.maximum(p, 1e-7) * (np.float32(np.log(2)) * y.size)), 0).astype(np.float32)
        out = np.stack([gain * by_d * np.sign(away) * self.width, gain * by_scale * (np.abs(said) < 4.5)], 1)
        back = (out @ self.w2.T) * (h > 0)
        w1, b1, wl, w2, b, tail = self._slopes
        w1[:], b1[:], wl[:], w2[:], b[:] = x.T @ back, back.sum(0), x.T @ out, h.T @ out, out.sum(0)
        tail[:] = share * (1 - share) * (gain * (each[1] - each[0])).sum(), more * (gain * by_more).sum()
        return float(-np.log2(np.maximum(p, 1e-7)).mean())


def _parts(flat: npt.NDArray[np.float32], ends: Any, shapes: list[tuple[int, ...]]) -> list[npt.NDArray[np.float32]]:
    return [part.reshape(s) for part, s in zip(np.split(flat, ends[:-1]), shapes)]


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def rounded_net(
    p: dict[str, npt.NDArray[np.float64]], a: npt.NDArray[np.float32], taps: npt.NDArray[np.int16]
) -> net.StepNet:
    """Float parameters -> integers within the bounds of exact arithmetic."""
    w1, b1 = p["w1"], p["b1"]
    factor = net.INPUT_MAX / np.maximum(np.abs(w1).max(1, initial=0), 1e-6)
    factor = np.minimum(factor, (1 << 21) / np.maximum(np.abs(b1), 1e-6))
    w1q = np.rint(w1 * factor[:, None])
    b1q = np.rint(b1 * factor)
    shift = np.zeros(len(b1), np.int64)
    if len(b1):
        pre = w1q.astype(np.float32) @ a[:, :: max(1, a.shape[1] // 20000)] + b1q[:, None].astype(np.float32)
        top = np.quantile(pre, 0.9995, axis=1)
        shift = np.ceil(np.log2(np.maximum(top, 1) / net.HIDDEN_MAX)).clip(0, 20).astype(np.int64)
    unit = np.array([1 << net.MEAN_BITS, (1 << net.CLASS_BITS) / CLASS_STEP])[:, None]
    w2 = p["w2"] * (2.0**shift / factor) * unit
    wl = p["wl"] * unit
    b = p["b"] * unit[:, 0]
    b[1] -= CLASS_LOW * unit[1, 0]
    # the floor after the hidden shift loses half a step on average
    b = b + 0.5 * (w2 * (shift > 0)).sum(1)
    room = net.EXACT - (1 << net.MEAN_BITS) - 64 * (net.INPUT_MAX + net.HIDDEN_MAX)
    sums = np.abs(wl).sum(1) * net.INPUT_MAX + np.abs(w2).sum(1) * net.HIDDEN_MAX + np.abs(b)
    fit_in = np.minimum(1.0, room / np.maximum(sums, 1))[:, None]
    limit = np.iinfo(np.int16).max
    return net.StepNet(
        taps=taps,
        w1=w1q.astype(np.int8),
        b1=b1q.astype(np.int32),
        s1=shift.astype(np.int8),
        wl=np.rint(wl * fit_in).clip(-limit, limit).astype(np.int16),
        w2=np.rint(w2 * fit_in).clip(-limit, limit).astype(np.int16),
        b=np.rint(b).astype(np.int32),
    )
