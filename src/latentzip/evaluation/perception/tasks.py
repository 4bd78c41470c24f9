"""Tasks of machine perception: what a downstream model or detector sees in a signal, and how two views compare.

A task observes signals a batch at a time and is then asked to compare what it saw in the originals with what it saw
in what was decoded. `perception` does the rest. Networks are any `torch.nn.Module`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...entropy.errors import InputError
from ..metrics.sound import mel_filters
from ..signals import Signal

BATCH = 32


class Task(ABC):
    """One thing that is done with signals.

    Attributes:
        name: of its columns; unique within an evaluation.
        modality: "image" or "audio".
    """

    name: str
    modality: str = "image"

    @abstractmethod
    def observe(self, signals: Sequence[Signal]) -> list[Any]:
        """What is seen in each signal."""

    @abstractmethod
    def score(self, originals: Sequence[Any], decoded: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        """Figures by name, from the observations of all originals, of all decoded signals, and the labels."""


def picture_tensor(picture: Image.Image) -> Tensor:
    """An RGB picture -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def sound_tensor(sound: tuple[np.ndarray, int]) -> Tensor:
    """Samples (T, C) and their rate -> (T,) float32, the mean of the channels at that rate."""
    return torch.from_numpy(sound[0].mean(1, dtype=np.float32))


class Network(Task):
    """A network's answers, and the features of one of its layers.

    Args:
        module: takes a batch of what ``prepare`` gives; returns (B, classes), (B, classes, h, w) or features (B, ...).
        prepare: from a Pillow image (RGB), as torchvision's transforms are, or from a pair (samples (T, C) float32,
            rate in Hz), to the tensor of one sample. By default the whole picture (3, H, W) in [0, 1], or the mono
            waveform (T,). Samples of different shapes are not put into one batch.
        layer: dotted name of the submodule whose output is compared (``module.get_submodule``); None: the module's own.
        answers: "class" (B, classes), "dense" (B, classes, h, w), or "none": only features are compared.
        device: where the module runs; it is moved there and put into evaluation mode.

    Scores: ``agreement`` (same answer as on the original; of dense answers the part of the positions), ``accuracy``
    where there are labels (an integer; of dense answers an integer map of the answers' size, negative = ignored),
    ``cosine`` (mean cosine similarity of the features), ``cka`` (linear CKA of the features over the data set, where
    all have one shape).

    Raises:
        InputError: no such layer, or outputs of another shape than ``answers`` says.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        prepare: Callable[[Any], Tensor] | None = None,
        *,
        layer: str | None = None,
        answers: str = "class",
        modality: str = "image",
        device: str = "cpu",
    ) -> None:
        if answers not in ("class", "dense", "none"):
            raise InputError(f"answers is {answers!r}; one of class, dense, none")
        self.name, self.modality, self.answers, self.device = name, modality, answers, device
        self.module = module.to(device).eval()
        self.prepare: Callable[[Any], Tensor] = prepare or (picture_tensor if modality == "image" else sound_tensor)
        if layer and isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"task {name}: layers inside of TorchScript cannot be seen; leave layer={layer!r} out")
        try:
            self.layer = None if layer is None else module.get_submodule(layer)
        except AttributeError as error:
            names = ", ".join(n for n, _ in module.named_children())
            raise InputError(f"task {name}: the module has no layer {layer!r}; its children are {names}") from error

    def observe(self, signals: Sequence[Signal]) -> list[tuple[Any, Tensor]]:
        """(answer, features) of each: an integer, an integer map or None; and a flat float32 tensor."""
        picture = self.modality == "image"
        samples = [self.prepare(Image.fromarray(s.data) if picture else (s.data, s.rate)) for s in signals]
        seen: list[tuple[Any, Tensor]] = []
        caught: list[Any] = []
        hook = (
            self.layer.register_forward_hook(lambda m, i, out: caught.append(out)) if self.layer is not None else None
        )
        try:
            for _, group in groupby(samples, key=lambda x: x.shape):
                for part in torch.stack(list(group)).to(self.device).split(BATCH):
                    caught.clear()
                    with torch.inference_mode():
                        output = self.module(part)
                    features = output if hook is None else caught[-1] if caught else None
                    if not isinstance(features, Tensor) or len(features) != len(part):
                        raise InputError(f"task {self.name}: a tensor of features (B, ...) is needed, not {features!r}")
                    seen += zip(self._answers(output), features.flatten(1).float().cpu())
        finally:
            if hook is not None:
                hook.remove()
        return seen

    def _answers(self, output: Any) -> list[Any]:
        if self.answers == "none":
            return [None] * len(output)
        rank = 2 if self.answers == "class" else 4
        if not isinstance(output, Tensor) or output.ndim != rank:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            wanted = "(B, classes)" if rank == 2 else "(B, classes, h, w)"
            raise InputError(f"task {self.name}: the module returns {shape}; answers={self.answers!r} needs {wanted}")
        best = output.argmax(1).cpu()
        return best.tolist() if rank == 2 else list(best.numpy())

    def score(self, originals: Sequence[Any], decoded: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        figures: dict[str, float] = {}
        if self.answers != "none":
            pairs = [(a, b) for (a, _), (b, _) in zip(originals, decoded)]
            figures["agreement"] = float(np.mean([np.mean(np.equal(a, b)) for a, b in pairs]))
            right = [self._right(b, t) for (_, b), t in zip(pairs, targets) if t is not None]
            if right:
                figures["accuracy"] = float(np.mean(right))
        x, y = ([f for _, f in seen] for seen in (originals, decoded))
        figures["cosine"] = float(np.mean([nn.functional.cosine_similarity(a, b, dim=0) for a, b in zip(x, y)]))
        if len(x) > 1 and len({f.shape for f in x}) == 1:
            figures["cka"] = linear_cka(torch.stack(x), torch.stack(y))
        return figures

    def _right(self, answer: Any, target: Any) -> float:
        if self.answers == "class":
            return float(answer == int(target))
        target = np.asarray(target)
        if target.shape != answer.shape:
            raise InputError(f"task {self.name}: a label map {target.shape} for answers {answer.shape}; resize it")
        return float(np.mean((answer == target)[target >= 0]))


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features (n, d) of the same n samples, in [0, 1]; 1 up to
    rotation and scale (Kornblith et al. 2019, arXiv 1905.00414)."""
    a, b = ((z := f.double() - f.double().mean(0)) @ z.T for f in (x, y))
    norm = float(a.norm() * b.norm())
    return float((a * b).sum()) / norm if norm else float(bool(torch.equal(a, b)))


class LogMel(nn.Module):
    """Log-mel spectrogram of waveforms (B, T) -> (B, mels, frames): features without weights.

    Values are in dB above a floor that is 80 dB below a sine of full scale, so that silence is 0.

    Args:
        rate: in Hz. Windows are 32 ms, steps 8 ms.
    """

    def __init__(self, rate: int, mels: int = 80) -> None:
        super().__init__()
        self.size, self.hop = int(0.032 * rate), max(1, int(0.008 * rate))
        self.register_buffer("window", torch.hann_window(self.size))
        self.register_buffer("filters", torch.from_numpy(mel_filters(rate, self.size, mels)))
        self.window: Tensor
        self.filters: Tensor

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, self.size, self.hop, window=self.window, return_complex=True).abs()
        power = self.filters @ (4 / self.size * spectrum).square()
        return 80 + 10 * power.clamp(min=1e-8).log10()


class Boundaries(Task):
    """Boundaries that a detector finds, against those that people drew and against those of the original.

    Args:
        find: (H, W, 3) uint8 -> (H, W) bool; `canny` and `felzenszwalb` are here.
        tolerance: of matching, as a part of the picture's diagonal (Martin et al. 2004 use 0.0075).

    Labels are (H, W) integer maps of segments (or None). Scores: ``agreement``, the F-measure against the original's
    boundaries, and ``f_score``, the one against the borders of the labels; counts are summed over the pictures. A
    boundary pixel is matched when one of the other set lies within the tolerance; it is not assigned one to one.
    """

    def __init__(self, name: str, find: Callable[[np.ndarray], np.ndarray], tolerance: float = 0.0075) -> None:
        self.name, self.find, self.tolerance = name, find, tolerance

    def observe(self, signals: Sequence[Signal]) -> list[np.ndarray]:
        """Boundary maps (H, W) bool."""
        return [self.find(s.data) for s in signals]

    def score(self, originals: Sequence[Any], decoded: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        from skimage.segmentation import find_boundaries

        figures = {"agreement": self._f_score(list(zip(decoded, originals)))}
        drawn = [(d, np.asarray(t)) for d, t in zip(decoded, targets) if t is not None]
        for found, target in drawn:
            if found.shape != target.shape:
                raise InputError(f"task {self.name}: a label map {target.shape} for a picture {found.shape}")
        if drawn:
            figures["f_score"] = self._f_score([(d, find_boundaries(t, mode="inner")) for d, t in drawn])
        return figures

    def _f_score(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
        counts = np.sum([boundary_counts(a, b, self.tolerance * math.hypot(*a.shape)) for a, b in pairs], axis=0)
        found_matched, found, true_matched, true = counts
        if not found or not true:
            return float(found == true)
        precision, recall = found_matched / found, true_matched / true
        return float(2 * precision * recall / max(precision + recall, 1e-12))


def boundary_counts(found: np.ndarray, true: np.ndarray, tolerance: float) -> tuple[int, int, int, int]:
    """Of two boundary maps (H, W) bool: found pixels within ``tolerance`` pixels of a true one, all found ones, true
    pixels within it of a found one, all true ones."""
    from scipy.ndimage import distance_transform_edt

    def near(a: np.ndarray, b: np.ndarray) -> int:
        if not b.any():
            return 0
        distance = distance_transform_edt(~b)
        assert isinstance(distance, np.ndarray)
        return int((distance[a] <= tolerance).sum())

    return near(found, true), int(found.sum()), near(true, found), int(true.sum())


def canny(picture: np.ndarray, sigma: float = 3.0) -> np.ndarray:
    """Edges of the luma by Canny's detector (scikit-image)."""
    from skimage.color import rgb2gray
    from skimage.feature import canny as detect

    return detect(rgb2gray(picture), sigma=sigma)


def felzenszwalb(picture: np.ndarray) -> np.ndarray:
    """Borders of the segments of Felzenszwalb and Huttenlocher's graph segmentation (scikit-image)."""
    from skimage.segmentation import felzenszwalb as segment
    from skimage.segmentation import find_boundaries

    return find_boundaries(segment(picture, scale=1000, sigma=0.8, min_size=400), mode="inner")
