"""CUDA graphs for functions of fixed sizes: a few hundred launches of a codec's transforms become one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor


class Captured:
    """A function from tensors to a tensor that is captured once a size and replayed after that.

    What it computes must depend on its inputs' values only through the device: no copies from the host, no waiting
    for results. Parameters may change in place; a function over other parameters is another `Captured`. On other
    devices the function is simply called.

    Args:
        function: takes tensors and returns one tensor. Runs without gradients.
        limit: sizes kept; the one used longest ago is let go.
    """

    def __init__(self, function: Callable[..., Tensor], limit: int = 8) -> None:
        self._function, self._limit = function, limit
        self._graphs: OrderedDict[Hashable, tuple[Any, list[Tensor], Tensor]] = OrderedDict()

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        if not inputs[0].is_cuda:
            return self._function(*inputs)
        key = tuple((t.shape, t.dtype, t.stride(), t.device) for t in inputs)
        if key not in self._graphs:
            self._graphs[key] = self._capture(inputs)
            if len(self._graphs) > self._limit:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        graph, held, out = self._graphs[key]
        for mine, given in zip(held, inputs):
            mine.copy_(given)
        graph.replay()
        return out.clone()  # the graph's own output is overwritten by the next call

    def _capture(self, inputs: tuple[Tensor, ...]) -> tuple[Any, list[Tensor], Tensor]:
        held = [t.clone(memory_format=torch.preserve_format) for t in inputs]
        side = torch.cuda.Stream(inputs[0].device)
        side.wait_stream(torch.cuda.current_stream(inputs[0].device))
        with torch.cuda.stream(side):  # compiles kernels and settles algorithms before anything is recorded
            for _ in range(2):
                self._function(*held)
        torch.cuda.current_stream(inputs[0].device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self._function(*held)
        return graph, held, out
