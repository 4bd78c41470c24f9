"""How many crops a step a device likes best."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .recipes import make_trainer
from .report import Log
from .sources import Folders

_GAIN = 1.1  # a doubled batch has to bring as much in crops a second
_LARGEST = 256


def best_batch(recipe: Any, data: Folders, device: str, log: Log = print, seconds: float = 40.0) -> Any:
    """The recipe with the batch that gives the most crops a second, and the learning rate and steps that go with it.

    The batch doubles from the recipe's own until crops a second grow by less than a tenth, memory is full or the time
    is over. The learning rate grows by the root of the batch, as gradients get less noisy by as much.
    """
    start, best, chosen = time.time(), 0.0, recipe.batch
    batch = recipe.batch
    with tempfile.TemporaryDirectory() as folder:
        while batch <= _LARGEST:
            try:
                trainer = make_trainer(replace(recipe, batch=batch), data, Path(folder) / str(batch), device=device)
                rate = batch / trainer.seconds_a_step(3)
            except torch.OutOfMemoryError:
                log(f"batch {batch}: does not fit the memory")
                break
            log(f"batch {batch}: {rate:.1f} crops/s")
            if rate < _GAIN * best:
                break
            best, chosen, batch = rate, batch, 2 * batch
            if time.time() - start > seconds / 2:  # the next one takes as long as all before
                break
    factor = chosen / recipe.batch
    return replace(recipe, batch=chosen, lr=recipe.lr * math.sqrt(factor), steps=max(1, round(recipe.steps / factor)))
