"""Operations on finished views, for a recipe's `extra`, and `Mix` for whole batches.

    Views("global", 2, 224, extra=(RandomErasing(p=0.25), GaussianNoise()))

They are applied after rendering, in this order, by the pipeline's own threads or on the GPU.
docs/guides/own-operation.md describes them, and how to write your own.
"""

from __future__ import annotations

from dataclasses import replace

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.operation import Operation, operation
from patchmill.loaders.operations.check import check
from patchmill.loaders.operations.colour import AutoContrast, Equalise, Gamma, Posterise, Sharpness
from patchmill.loaders.operations.draws import Draws
from patchmill.loaders.operations.erasing import RandomErasing
from patchmill.loaders.operations.mix import Mix
from patchmill.loaders.operations.noise import GaussianNoise
from patchmill.loaders.operations.rand_augment import RandAugment
from patchmill.loaders.operations.rotation import Rotation
from patchmill.loaders.operations.values import from_unit, to_unit
from patchmill.loaders.recipe import Recipe

__all__ = [
    "AutoContrast",
    "Draws",
    "Equalise",
    "Gamma",
    "GaussianNoise",
    "Mix",
    "Operation",
    "Posterise",
    "RandAugment",
    "RandomErasing",
    "Rotation",
    "Sharpness",
    "add",
    "check",
    "from_unit",
    "operation",
    "to_unit",
]


def add(recipe: Recipe, *operations: Operation, group: str | None = None) -> Recipe:
    """Add operations to a recipe, such as a preset, in every view group or in one.

    add(dino(), RandomErasing(p=0.1), group="global")
    """
    if group is not None:
        recipe.group(group)
    views = tuple(
        replace(each, extra=(*each.extra, *operations)) if group in (None, each.name) else each
        for each in recipe.views
    )
    if not operations:
        raise MillError("add takes a recipe and at least one operation, such as RandomErasing()")
    return replace(recipe, views=views)
