"""The views that an image is evaluated by in patches: of the scale that was trained on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Centre, Chance, Crop, Recipe, Spread, Views, Window
from patchmill.training.config.recipes import evaluation_recipe, training_recipe
from patchmill.training.config.settings import Config

Sampling = Literal["grid", "random"]

GROUP = "patches"


def central(config: Config) -> Recipe:
    """The whole image, or of photos its centre, at the size that the patches have.

    Not at their magnification: a network that learnt from patches has not seen such views.
    """
    views = trained_on(config)
    (seen, *_) = evaluation_recipe(config).views
    law = seen.crop
    margin = law.short_side / seen.size if isinstance(law, Centre) else 1.0
    return _plain(views, 1, Centre(max(views.size, round(views.size * margin))))


def grid(config: Config, count: int, area: float | None = None) -> Recipe:
    """`count` patches at even steps, a square number; one alone is in the middle."""
    side, views = math.isqrt(count), trained_on(config)
    if side**2 != count:
        raise MillError(
            f"{count} patches are no square grid: take {side**2} or {(side + 1) ** 2}, or "
            "sampling=random"
        )
    if area is None and isinstance(views.crop, Window):
        return _plain(views, 1, Spread(side, side, short_side=views.crop.short_side))
    return _plain(views, 1, Spread(side, side, area or trained_area(views)))


def random(
    config: Config, count: int, photometric: bool = False, area: float | None = None
) -> Recipe:
    """`count` patches drawn as in training, which also mirrors them; with its colours, or not."""
    views = trained_on(config)
    law = views.crop
    if area is not None or not isinstance(law, Window):
        scale = area or trained_area(views)
        law = Crop((scale, scale), law.ratio if isinstance(law, Crop) else (1.0, 1.0))
    views = replace(views, name=GROUP, count=count, crop=law, paste=None)
    if not photometric:
        flip = _repeated(views.flip, count)
        return Recipe((replace(views, flip=flip, colour=None, blur=None, solarise=0.0),))
    colour, blur = views.colour, views.blur
    if colour:
        p, grey = _repeated(colour.p, count), _repeated(colour.grey, count)
        colour = replace(colour, p=p, grey=grey)
    if blur:
        blur = replace(blur, p=_repeated(blur.p, count))
    flip, solarise = _repeated(views.flip, count), _repeated(views.solarise, count)
    return Recipe((replace(views, flip=flip, colour=colour, blur=blur, solarise=solarise),))


def trained_on(config: Config) -> Views:
    return training_recipe(config).views[0]


def trained_area(views: Views) -> float:
    """The share of an image that each patch showed."""
    law = views.crop
    if isinstance(law, Crop) and law.scale[0] == law.scale[1]:
        return law.scale[0]
    raise MillError(
        "this run did not learn from patches of one scale: say which to evaluate, as a share of "
        "the image, such as area=0.2"
    )


def _plain(views: Views, count: int, law: Centre | Spread) -> Recipe:
    how = views.interpolation
    return Recipe((Views(GROUP, count, views.size, law, flip=0.0, interpolation=how),))


def _repeated(chance: Chance, count: int) -> Chance:
    """Chances of as many views, from those of training's, in turn."""
    if not isinstance(chance, tuple):
        return chance
    return tuple(chance[i % len(chance)] for i in range(count))
