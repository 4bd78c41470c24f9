"""All recipes, and the trainer that each kind of recipe needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import bottleneck, hyperprior, mdct, vq_trainer, walloc, walloc_audio
from .sources import Folders
from .trainer import Recipe

RECIPES: dict[str, Recipe] = {
    **walloc.RECIPES,
    **hyperprior.RECIPES,
    **bottleneck.RECIPES,
    **mdct.RECIPES,
    **walloc_audio.RECIPES,
    **vq_trainer.RECIPES,
}
_TRAINERS: dict[type[Recipe], type[Any]] = {
    walloc.Recipe: walloc.Trainer,
    hyperprior.Recipe: hyperprior.Trainer,
    bottleneck.Recipe: bottleneck.Trainer,
    mdct.Recipe: mdct.Trainer,
    walloc_audio.Recipe: walloc_audio.Trainer,
    vq_trainer.Recipe: vq_trainer.Trainer,
}


def make_trainer(recipe: Recipe, data: Folders, run: Path, **options: Any) -> Any:
    """The trainer of a recipe, with the options of `Trainer`; an existing run in the folder goes on."""
    return _TRAINERS[type(recipe)](recipe, data, run, **options)
