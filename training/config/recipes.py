"""The recipes named in a run's settings; errors begin with the setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config


def training_recipe(config: Config) -> Recipe:
    """Recipe of the training views."""
    return _load("method.views", config.method.views)


def evaluation_recipe(config: Config) -> Recipe:
    """Recipe of the evaluation views."""
    return _load("evaluate.view", config.evaluate.view)


def _load(key: str, text: str) -> Recipe:
    try:
        return load_recipe(text)
    except MillError as error:
        raise MillError(f"{key}: {error}") from None
