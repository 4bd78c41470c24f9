"""A training step as a CUDA graph: one launch instead of thousands, so that small networks keep a large GPU busy."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

Body = Callable[[Tensor], dict[str, Tensor]]
_WARM = 3  # steps before a graph is captured: what is compiled, chosen and allocated once is so by then


class GraphedStep:
    """Runs a step's body as it is at first, then from a captured graph; anew for every phase of the run.

    Args:
        body: all that a step does on the device, from crops (B, ...) to figures to report; it never waits for the
            device, and draws its random numbers from torch's generator.
        prepare: called before a capture: gradients that exist already would be added to.
    """

    def __init__(self, body: Body, prepare: Callable[[], None]) -> None:
        self.body, self.prepare = body, prepare
        self.phase: Hashable = None
        self.steps = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.failed = ""

    def __call__(self, crops: Tensor, phase: Hashable) -> dict[str, Tensor]:
        """One step. ``phase`` names what the body does otherwise than before, such as another kind of noise."""
        if phase != self.phase:
            self.phase, self.steps, self.graph = phase, 0, None
        self.steps += 1
        if self.failed or self.steps <= _WARM:
            return self._beside(crops)
        if self.graph is None:
            try:
                self._capture(crops)
            except RuntimeError as error:
                self.failed = " ".join(str(error).split())[:400]
                torch.cuda.synchronize()
                return self._beside(crops)
        assert self.graph is not None
        self.crops.copy_(crops)
        self.graph.replay()
        return {name: value.clone() for name, value in self.report.items()}

    def _beside(self, crops: Tensor) -> dict[str, Tensor]:
        """Run the body on a stream of its own, as graphs want it before a capture."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self.prepare()
            report = self.body(crops)
        current.wait_stream(stream)
        return report

    def _capture(self, crops: Tensor) -> None:
        self.crops = crops.clone()
        self.prepare()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.report = self.body(self.crops)
        self.graph = graph
