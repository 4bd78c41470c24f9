"""Rate, error and all gradients of one picture's latents and nets: the compiled loops of `kernels.pyramid`, chained.

The work is cut into strips of rows whose number depends on the picture alone, and sums are taken in their order:
results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...kernels.pyramid import context, features, quantiser, synthesis, upsample
from ...kernels.pyramid.constants import GAIN, REACH
from .nets import FEATURE_LEVELS, LEVELS, Floats, Nets, Size, grid_shapes, neighbours
from .workers import STRIPS, Task, Workers, strips


def _totals(parts: list[list[Floats]]) -> list[Floats]:
    """Sums of the parts' arrays, in the order of the parts."""
    return [np.sum(p, axis=0) for p in zip(*parts)]


class Chain:
    """Buffers for pictures of one size, and the passes through them.

    Args:
        size, channels: of the nets.
        shape: (h, w) of the picture.
        workers: threads.

    Attributes:
        values: (n,) float32, all grids end to end, finest first: what `run` works on.
        grad: (n,) float32, gradient of the loss by ``values``.
        nets_grad: gradients by the weights.
        bits: (LEVELS,) bits of each grid.
        picture: (channels, h, w) view of the synthesised picture.
    """

    def __init__(self, size: Size, channels: int, shape: tuple[int, int], workers: Workers) -> None:
        self.size, self.channels, self.shape, self.workers = size, channels, shape, workers
        self.shapes = grid_shapes(*shape)
        self.starts = np.cumsum([0] + [h * w for h, w in self.shapes])[:-1].astype(np.int64)
        self.widths = np.array([w for _, w in self.shapes], np.int64)
        self.count = sum(h * w for h, w in self.shapes)
        self.values, self.grad = np.zeros(self.count, np.float32), np.zeros(self.count, np.float32)
        self.nets_grad = Nets(size, channels)
        self.bits = np.zeros(LEVELS)
        self._context_buffers()
        self._picture_buffers()

    def grid(self, flat: Any, k: int) -> Any:
        """Grid k of all grids end to end, as a view (h, w)."""
        h, w = self.shapes[k]
        return flat[self.starts[k] : self.starts[k] + h * w].reshape(h, w)

    # --- rate ----------------------------------------------------------------------------------------------------

    def _context_buffers(self) -> None:
        c, r = self.size.inputs, REACH
        self._padded = [np.zeros((r + h, w + 2 * r), np.float32) for h, w in self.shapes]
        self._features = [
            np.zeros((self.size.features, *self.shapes[k + 1]), np.float32) for k in range(FEATURE_LEVELS)
        ]
        self._grad_features = [np.zeros_like(f) for f in self._features]
        self._none = np.zeros((self.size.features, 1, 1), np.float32)
        self._parts = [(k, y0, y1) for k, (h, _) in enumerate(self.shapes) for y0, y1 in strips(h)]
        self._part_grads = [np.zeros((r + y1 - y0, self.shapes[k][1] + 2 * r), np.float32) for k, y0, y1 in self._parts]
        shapes = ((c, c), (c,), (c, c), (c,), (4, 2 * c), (4,))
        self._part_sums = [[np.zeros(s, np.float32) for s in shapes] for _ in self._parts]
        self._part_bits = np.zeros(len(self._parts))

    def _context_tasks(self, nets: Nets, scale: float, need: bool) -> list[Task]:
        c = self.size.inputs
        eye, w3, b3 = np.eye(c, dtype=np.float32), np.zeros((4, 2 * c), np.float32), np.zeros(4, np.float32)
        w3[:2], b3[:2] = nets["w3"], nets["b3"]
        weights = (nets["w1"] + eye, nets["b1"], nets["w2"] + eye, nets["b2"], w3, b3, np.float32(scale))
        dy, dx = neighbours(self.size.neighbours)

        def part(i: int) -> None:
            k, y0, y1 = self._parts[i]
            sums = self._part_sums[i]
            for s in sums:
                s.fill(0)
            own = k < FEATURE_LEVELS
            f, gf = (self._features[k], self._grad_features[k]) if own else (self._none, self._none)
            self._part_bits[i] = context.context_strip(
                self._padded[k], self.shapes[k][1], y0, y1, f, own, dy, dx, *weights,
                self._part_grads[i], gf, *sums, need,
            )  # fmt: skip

        return [partial(part, i) for i in range(len(self._parts))]

    def _feature_tasks(self, nets: Nets) -> list[Task]:
        tasks: list[Task] = []
        for k, out in enumerate(self._features):
            for y0, y1 in strips(out.shape[1]):
                args = (self.values, self.starts, self.widths, k, nets[f"fw{k}"], nets[f"fb{k}"], out, y0, y1)
                tasks.append(partial(features.features_rows, *args))
        return tasks

    def _pad(self) -> None:
        for k, (_, w) in enumerate(self.shapes):
            self._padded[k][REACH:, REACH : REACH + w] = self.grid(self.values, k)

    def _collect_context(self, nets: Nets) -> None:
        """Strips' gradients into `grad` and `nets_grad`, in their order."""
        r, g = REACH, self.nets_grad
        for (k, y0, y1), part in zip(self._parts, self._part_grads):
            out, w = self.grid(self.grad, k), self.shapes[k][1]
            out[y0:y1] += part[r:, r : r + w]
            if y0:
                out[y0 - r : y0] += part[:r, r : r + w]
        for name, total in zip(("w1", "b1", "w2", "b2", "w3", "b3"), _totals(self._part_sums)):
            g[name][...] = total[: len(g[name])]
        lines = [np.zeros(f.shape[2], np.float32) for f in self._features]
        columns = [np.zeros((LEVELS - 1 - k, self.size.features), np.float32) for k in range(FEATURE_LEVELS)]

        def share(j: int) -> None:  # each task writes to one grid
            for k in range(min(j, FEATURE_LEVELS)):
                args = (k, j - 1 - k, nets[f"fw{k}"], self._grad_features[k], self.grad, columns[k][j - 1 - k])
                features.features_backward(self.values, self.starts, self.widths, *args, np.empty_like(lines[k]))

        self.workers.run([partial(share, j) for j in range(1, LEVELS)])
        for k in range(FEATURE_LEVELS):
            g[f"fw{k}"][...] = columns[k].T
            g[f"fb{k}"][...] = self._grad_features[k].sum((1, 2))

    # --- picture -------------------------------------------------------------------------------------------------

    def _picture_buffers(self) -> None:
        h, w = self.shape
        n, wide, channels = self.size.residuals, self.size.width, self.channels
        self._planes = [np.zeros((LEVELS - k, hh * ww), np.float32) for k, (hh, ww) in enumerate(self.shapes)]
        self._grad_planes = [np.zeros_like(p) for p in self._planes]
        self._layers = [np.zeros((channels, h + 2, w + 2), np.float32) for _ in range(n + 1)]
        self._grad_layers = [np.zeros((channels, h + 4, w + 4), np.float32) for _ in range(n + 1)]
        self._rows = strips(h, even=False)
        shapes = ((wide, 8), (wide,), (4, wide + 8), (4,))
        self._pixel_sums = [[np.zeros(s, np.float32) for s in shapes] for _ in self._rows]
        kernels = ((channels, channels, 3, 3), (channels,))
        self._conv_sums = [[np.zeros(s, np.float32) for s in kernels] for _ in range(len(self._rows) + 1)]
        self.picture = self._layers[-1][:, 1:-1, 1:-1]

    def _pixel_weights(self, nets: Nets) -> tuple[Floats, ...]:
        wide, levels = self.size.width, LEVELS
        w1, w2, b2 = np.zeros((wide, 8), np.float32), np.zeros((4, wide + 8), np.float32), np.zeros(4, np.float32)
        w1[:, :levels] = nets["s1"]
        w2[: self.channels, : wide + levels], b2[: self.channels] = nets["s2"], nets["sb2"]
        return w1, nets["sb1"], w2, b2

    def _upsample(self, nets: Nets) -> None:
        for k in range(LEVELS - 1, -1, -1):
            self._planes[k][0] = self.values[self.starts[k] : self.starts[k] + self._planes[k].shape[1]]
            if k == LEVELS - 1:
                continue
            (h, w), below = self.shapes[k], self._planes[k + 1].reshape(LEVELS - k - 1, *self.shapes[k + 1])
            args = (below, LEVELS - k - 1, nets[f"up{k}"], self._planes[k], h, w)
            self.workers.run([partial(upsample.upsample_rows, *args, y0, y1) for y0, y1 in strips(h, even=False)])

    def synthesise(self, nets: Nets) -> Floats:
        """The picture of `values`: a view (channels, h, w), about [0, 1]."""
        run, w = self.workers.run, self.shape[1]
        self._upsample(nets)
        weights = self._pixel_weights(nets)
        first = self._layers[0]
        run([partial(synthesis.pointwise_rows, self._planes[0], *weights, first, w, *rows) for rows in self._rows])
        for k in range(self.size.residuals):
            x, y = self._layers[k], self._layers[k + 1]
            synthesis.repeat_edges(x)
            args = (x, nets[f"c{k}"], nets[f"cb{k}"], y, k < self.size.residuals - 1)
            run([partial(synthesis.residual_rows, *args, *rows) for rows in self._rows])
        return self.picture

    def _picture_backward(self, nets: Nets) -> None:
        """From the gradient by the picture in the last of `_grad_layers` to all others."""
        run, (h, w), g = self.workers.run, self.shape, self.nets_grad
        for k in range(self.size.residuals - 1, -1, -1):
            x, gy, gx = self._layers[k], self._grad_layers[k + 1], self._grad_layers[k]
            parts = strips(h + 2, even=False)
            for part in self._conv_sums:
                for s in part:
                    s.fill(0)
            args = (x, nets[f"c{k}"], gy, gx)
            run([
                partial(synthesis.residual_backward, *args, *sums, *rows) for sums, rows in zip(self._conv_sums, parts)
            ])  # fmt: skip
            synthesis.fold_edges(gx)
            if k:
                run([partial(synthesis.rectified_rows, x, gx, *rows) for rows in self._rows])
            g[f"c{k}"][...], g[f"cb{k}"][...] = _totals(self._conv_sums)
        for part in self._pixel_sums:
            for s in part:
                s.fill(0)
        w1, b1, w2, _ = self._pixel_weights(nets)
        args = (self._planes[0], w1, b1, w2, self._grad_layers[0], self._grad_planes[0])
        run([
            partial(synthesis.pointwise_backward, *args, *sums, w, *rows)
            for sums, rows in zip(self._pixel_sums, self._rows)
        ])  # fmt: skip
        d1, db1, d2, db2 = _totals(self._pixel_sums)
        g["s1"][...], g["sb1"][...] = d1[:, :LEVELS], db1
        g["s2"][...], g["sb2"][...] = d2[: self.channels, : self.size.width + LEVELS], db2[: self.channels]
        for k in range(LEVELS - 1):
            (h, w), n = self.shapes[k], LEVELS - k - 1
            below = self._planes[k + 1].reshape(n, *self.shapes[k + 1])
            to = self._grad_planes[k + 1].reshape(n, *self.shapes[k + 1])
            taps, up = np.zeros((n, 4), np.float32), self._grad_planes[k]
            run([
                partial(upsample.upsample_backward, below[c], nets[f"up{k}"], up[c + 1], to[c], taps[c], h, w)
                for c in range(n)
            ])  # fmt: skip
            g[f"up{k}"][...] = taps.sum(0)

    # --- passes --------------------------------------------------------------------------------------------------

    def rate(self, nets: Nets) -> float:
        """Bits of `values`; those of each grid are in `bits`."""
        self._pad()
        self.workers.run(self._feature_tasks(nets))
        self.workers.run(self._context_tasks(nets, 1.0, False))
        self._sum_bits()
        return float(self.bits.sum())

    def _sum_bits(self) -> None:
        self.bits[:] = 0
        for (k, _, _), b in zip(self._parts, self._part_bits):
            self.bits[k] += b

    def error(self, nets: Nets, target: Floats, weight: Floats | None = None) -> float:
        """Mean (weighted) squared error of the picture of `values`; its gradient is left in `_grad_layers`."""
        self.synthesise(nets)
        scale = np.float32(1 / target.size)
        map_ = self._none[0] if weight is None else weight
        sums = np.zeros(len(self._rows))

        def part(i: int) -> None:
            args = (self._layers[-1], target, map_, weight is not None, self._grad_layers[-1], scale)
            sums[i] = synthesis.squared_error_rows(*args, *self._rows[i])

        self.workers.run([partial(part, i) for i in range(len(sums))])
        return float(sums.sum()) / target.size

    def gradients(
        self, nets: Nets, target: Floats, rate_weight: float, weight: Floats | None = None,
        objective: Callable[[Floats], tuple[float, Floats]] | None = None,
    ) -> tuple[float, float]:  # fmt: skip
        """Error and bits of `values`, and the gradients of error + rate_weight * bits in `grad` and `nets_grad`.

        Args:
            target: (channels, h, w) float32.
            weight: (h, w) float32, importance of pixels.
            objective: instead of the squared error: a picture (channels, h, w) -> its error and gradient.
        """
        self._pad()
        self.workers.run(self._feature_tasks(nets))
        if objective is None:
            error = self.error(nets, target, weight)
        else:
            error, slope = objective(self.synthesise(nets))
            self._grad_layers[-1][:, 2:-2, 2:-2] = slope
        self.workers.run(self._context_tasks(nets, rate_weight, True))
        self._sum_bits()
        self._picture_backward(nets)
        for k in range(LEVELS):
            self.grid(self.grad, k)[...] = self._grad_planes[k][0].reshape(self.shapes[k])
        self._collect_context(nets)
        return error, float(self.bits.sum())

    # --- latents -------------------------------------------------------------------------------------------------

    def _slices(self) -> list[slice]:
        edges = np.linspace(0, self.count, STRIPS + 1).astype(int).tolist()
        return [slice(a, b) for a, b in zip(edges, edges[1:])]

    def place(self, x: Floats) -> Floats:
        """Numbers where this chain computes."""
        return x

    def integers(self, latent: Floats) -> Floats:
        """Values that latents are rounded to for good."""
        return np.rint(latent * np.float32(GAIN))

    def harden(self, latent: Floats) -> None:
        """`values` from latents, rounded for good."""
        np.rint(latent * np.float32(GAIN), out=self.values)

    def soften(self, latent: Floats, noise: Floats, sigma: float, temperature: float, slope: Floats) -> None:
        """`values` from latents in units of 1 / GAIN; ``slope`` is set to their derivative."""
        numbers = (np.float32(sigma), np.float32(temperature))
        self.workers.run([
            partial(quantiser.soften, latent[s], noise[s], *numbers, self.values[s], slope[s]) for s in self._slices()
        ])  # fmt: skip

    def adam(
        self, latent: Floats, slope: Floats, m: Floats, v: Floats, rate: float, betas: tuple[float, float], step: int
    ) -> None:
        """One step of Adam of the latents along `grad`."""
        f, (b1, b2) = np.float32, betas
        numbers = (f(rate), f(b1), f(b2), f(1 / (1 - b1**step)), f(1 / (1 - b2**step)))
        self.workers.run([
            partial(quantiser.adam, latent[s], self.grad[s], slope[s], m[s], v[s], *numbers) for s in self._slices()
        ])  # fmt: skip
