"""Registry of presets, and constants that several of them share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec

from patchmill.loaders.common import settings
from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Colour, Recipe

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
SWAV_STD = (0.228, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

MILD = Colour(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)


def simclr_jitter(strength: float = 1.0) -> Colour:
    """SimCLR's colour jitter, which SwAV and GTSA adopted."""
    return Colour(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)


STRONG = simclr_jitter()

ALL: dict[str, Callable[..., Recipe]] = {}

P = ParamSpec("P")


def preset(function: Callable[P, Recipe]) -> Callable[P, Recipe]:
    """Register a preset under its function's name, with arguments checked by annotation."""
    build: Callable[..., Recipe] = function

    @functools.wraps(function)
    def checked(*values: P.args, **keywords: P.kwargs) -> Recipe:
        signature = inspect.signature(function)
        for key in keywords:
            if key not in signature.parameters:
                hint = nearest(key, signature.parameters)
                raise MillError(f"preset {function.__name__} has no setting {key!r}{hint}")
        arguments = signature.bind(*values, **keywords).arguments
        return build(**settings.checked_arguments(function, arguments))

    ALL[function.__name__] = checked
    return checked
