"""The preset for evaluation."""

from __future__ import annotations

from patchmill.loaders.presets.registry import preset
from patchmill.loaders.recipe import Centre, Recipe, Views


@preset
def eval(size: int = 224, short_side: int = 256, interpolation: str = "bilinear") -> Recipe:
    """Centre crop for evaluation; nothing is random.

    size: side of the crop in pixels
    short_side: the image is first resized until its shorter side has this many pixels
    interpolation: bilinear or bicubic
    """
    view = Views("image", 1, size, Centre(short_side), flip=0.0, interpolation=interpolation)
    return Recipe((view,), "eval", "torchvision's Resize and CenterCrop, as used for ImageNet.")
