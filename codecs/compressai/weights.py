"""CompressAI checkpoints -> CompressAI models, whatever way the weights were saved.

Only this module imports compressai (seconds), and only when a model is asked for.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ...entropy.errors import InputError, UnsupportedError

Weights = str | os.PathLike[str] | Mapping[str, Tensor] | nn.Module

# what CompressAI's update() computes: of any size, or absent; tables are rebuilt from the density instead
_COMPUTED = ("._quantized_cdf", "._offset", "._cdf_length", ".scale_table")
_MOST_CHANNELS = 4096


def models() -> dict[str, tuple[type[Any], dict[int, tuple[int, ...]]]]:
    """CompressAI's picture models of fixed rate: class, and channels (N, M) or (N,) of each quality."""
    try:
        from compressai.registry import MODELS
        from compressai.zoo.image import cfgs
    except ImportError as error:
        raise UnsupportedError(
            f"CompressAI's models need the compressai package: pip install compressai ({error})"
        ) from None
    return {name: (MODELS[name], sizes) for name, sizes in cfgs.items()}


def read_weights(source: Weights) -> dict[str, Tensor]:
    """A state dict from a file, a dict or a module.

    Args:
        source: path of a ``.safetensors`` file or of one that ``torch.save`` wrote (read without running pickled
            code): a state dict, or a checkpoint with one under ``"state_dict"``; or such a dict; or a module.

    Raises:
        InputError: not weights. OSError: the file cannot be read.
    """
    if isinstance(source, nn.Module):
        return source.state_dict()
    content: Any = source if isinstance(source, Mapping) else _read_file(Path(source))
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        what = "the dict" if isinstance(source, Mapping) else os.fspath(source)
        raise InputError(f"{what} holds no state dict: save model.state_dict(), alone or under 'state_dict'")
    return dict(state)


def _read_file(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(path.read_bytes())
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{path}: not a file of weights that can be read safely: {reason}") from error


def build_model(name: str, source: Weights, quality: int | None = None) -> nn.Module:
    """The CompressAI model of this name with these weights, on the CPU, float32, in eval mode.

    Args:
        name: as in ``compressai.zoo``, such as ``"mbt2018-mean"``.
        source: see `read_weights`; a module is copied, never changed.
        quality: CompressAI's number, 1 to 6 or 8; it fixes nothing (sizes are read off the weights) but is checked.

    Raises:
        InputError: unknown model, weights of another one, or of another quality's size.
        UnsupportedError: compressai is not installed.
    """
    zoo = models()
    from compressai.models.utils import remap_old_keys
    from compressai.zoo import load_state_dict

    if name not in zoo:
        raise InputError(f"CompressAI has no picture model {name!r} that can be taken over; known: {', '.join(zoo)}")
    architecture, known = zoo[name]
    state = {k: v for k, v in load_state_dict(read_weights(source)).items() if not k.endswith(_COMPUTED)}
    state = remap_old_keys("entropy_bottleneck", state)
    sizes = _sizes(name, state)
    if quality is not None and quality not in known:
        raise InputError(f"quality is {quality!r}; {name} of CompressAI has 1 to {max(known)}")
    if quality is not None and known[quality] != sizes:
        raise InputError(f"{name} of quality {quality} has {known[quality]} channels, these weights have {sizes}")
    model: nn.Module = architecture(*sizes)  # of channels that `_sizes` has bounded
    expected = model.state_dict()
    for key, value in state.items():
        if key in expected and expected[key].shape != value.shape:
            raise InputError(
                f"the weights do not fit {name}: {key} is {tuple(value.shape)}, not {tuple(expected[key].shape)}"
            )
    try:
        missing, unexpected = nn.Module.load_state_dict(model, state, strict=False)
    except RuntimeError as error:
        raise InputError(f"the weights do not fit {name}: {str(error).splitlines()[-1].strip()}") from error
    missing = [k for k in missing if k in dict(model.named_parameters())]  # buffers are constants
    if missing or unexpected:
        what = f"lack {missing[0]}" if missing else f"hold {unexpected[0]}, which it has not"
        raise InputError(f"the weights do not fit {name}: they {what}")
    for key, value in model.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"the weights of {name} are damaged: {key} holds NaN or infinite values")
    return model.eval().requires_grad_(False)


def _sizes(name: str, state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """(N, M), or (N,) where they are the same, from the shapes of the analysis transform."""
    keys = ("g_a.0.conv1.weight",) if name.startswith("cheng2020") else ("g_a.0.weight", "g_a.6.weight")
    for key in keys:
        if key not in state:
            raise InputError(f"the weights do not fit {name}: they lack {key!r}")
        if state[key].ndim != 4 or not 1 <= state[key].shape[0] <= _MOST_CHANNELS:
            raise InputError(f"the weights do not fit {name}: {key} is {tuple(state[key].shape)}, no convolution of it")
    return tuple(state[key].shape[0] for key in keys)
