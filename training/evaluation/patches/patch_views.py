"""Recipes of evaluation views: a central view, and patches at the scale of training."""

from __future__ import annotations

import math
from dataclasses import replace

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Centre, Chance, Crop, Recipe, Spread, Views, Window
from patchmill.training.config.recipes import evaluation_recipe, training_recipe
from patchmill.training.config.settings import Config

GROUP = "patches"


def central(config: Config) -> Recipe:
    """One view of the whole image, or of a photo's centre, at the size of the training patches.

    Its scale is smaller than theirs: a network trained on patches has not seen such views.
    """
    views = training_views(config)
    (view, *_) = evaluation_recipe(config).views
    crop = view.crop
    margin = crop.short_side / view.size if isinstance(crop, Centre) else 1.0
    return _without_augmentation(views, 1, Centre(max(views.size, round(views.size * margin))))


def enlarged(config: Config, area: float | None = None) -> Recipe:
    """One view of the whole image, magnified like the patches; networks must support its size."""
    views = training_views(config)
    if area is None and isinstance(views.crop, Window):
        size = views.crop.short_side
    else:
        size = round(views.size / math.sqrt(area or trained_area(views)))
    return _without_augmentation(replace(views, size=size), 1, Centre(size))


def grid(config: Config, count: int, area: float | None = None) -> Recipe:
    """`count` patches on an evenly spaced square grid; a single one is in the centre."""
    side, views = math.isqrt(count), training_views(config)
    if side**2 != count:
        raise MillError(
            f"{count} patches make no square grid: use {side**2} or {(side + 1) ** 2}, or "
            "sampling=random"
        )
    if area is None and isinstance(views.crop, Window):
        return _without_augmentation(views, 1, Spread(side, side, short_side=views.crop.short_side))
    return _without_augmentation(views, 1, Spread(side, side, area or trained_area(views)))


def random(
    config: Config, count: int, photometric: bool = False, area: float | None = None
) -> Recipe:
    """`count` patches drawn and flipped as in training; `photometric` adds its colour changes.

    They are square for networks that were not trained on patches of one scale.
    """
    views = training_views(config)
    crop = views.crop
    if area is not None or not isinstance(crop, Window):
        scale = area or trained_area(views)
        ratio = (1.0, 1.0)
        if isinstance(crop, Crop) and crop.scale[0] == crop.scale[1]:
            ratio = crop.ratio
        crop = Crop((scale, scale), ratio)
    views = replace(views, name=GROUP, count=count, crop=crop, paste=None, extra=())
    if not photometric:
        flip = _cycle(views.flip, count)
        return Recipe((replace(views, flip=flip, colour=None, blur=None, solarise=0.0),))
    colour, blur = views.colour, views.blur
    if colour:
        p, grey = _cycle(colour.p, count), _cycle(colour.grey, count)
        colour = replace(colour, p=p, grey=grey)
    if blur:
        blur = replace(blur, p=_cycle(blur.p, count))
    flip, solarise = _cycle(views.flip, count), _cycle(views.solarise, count)
    return Recipe((replace(views, flip=flip, colour=colour, blur=blur, solarise=solarise),))


def training_views(config: Config) -> Views:
    return training_recipe(config).views[0]


def trained_area(views: Views) -> float:
    """Return the area of a training patch as a fraction of its image."""
    crop = views.crop
    if isinstance(crop, Crop) and crop.scale[0] == crop.scale[1]:
        return crop.scale[0]
    raise MillError(
        "this run was not trained on patches of one scale: give the scale to evaluate as a share "
        "of the image, such as area=0.2"
    )


def _without_augmentation(views: Views, count: int, crop: Centre | Spread) -> Recipe:
    group = Views(GROUP, count, views.size, crop, flip=0.0, interpolation=views.interpolation)
    return Recipe((group,))


def _cycle(chance: Chance, count: int) -> Chance:
    """Return probabilities for `count` views, cycling through training's."""
    if not isinstance(chance, tuple):
        return chance
    return tuple(chance[i % len(chance)] for i in range(count))
