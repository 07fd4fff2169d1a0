"""The preset for evaluation."""

from __future__ import annotations

from patchmill.loaders.presets.registry import preset
from patchmill.loaders.recipe import Centre, Recipe, Views


@preset
def eval(size: int = 224, short_side: int = 256, interpolation: str = "bilinear") -> Recipe:
    """Deterministic centre crop for evaluation.

    size: side of the crop in pixels
    short_side: shorter side, in pixels, that the image is first resized to
    interpolation: bilinear or bicubic
    """
    view = Views("image", 1, size, Centre(short_side), flip=0.0, interpolation=interpolation)
    return Recipe((view,), "eval", "torchvision's Resize and CenterCrop, as used for ImageNet.")
