"""kornia's augmentations on a GPU, a batch at a time, with parameters drawn per image.

kornia accepts only dense batches, so images must be cropped first. Resizing all images to one shape
would lose detail in small crops and change the distribution of crops; instead, torchvision's
antialiased RandomResizedCrop crops image by image on the GPU. kornia's own crop also works image by
image, but without antialiasing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from patchmill.benchmarks.peers import Batches, ragged
from patchmill.benchmarks.peers.torchvision_gpu import Normalise, cells, crop
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Blur, Colour, Recipe, Views, chance_of

NOTE = (
    "gets crops from torchvision, image by image, because it takes dense batches only; it jitters "
    "a whole batch in one order, and blurs with one window size"
)
DEVICES = {"cpu": "it is for GPUs", "cuda": ""}
DECODER, ANTIALIASED = "nvJPEG", True


def available() -> str | None:
    try:
        import kornia.augmentation  # noqa: F401
    except ImportError:
        return "kornia is not installed: pip install 'patchmill[bench]'"
    return None


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    for group in recipe.views:
        if group.turns:
            raise MillError(
                f"the kornia peer has no quarter turns, which view group {group.name!r} needs"
            )
    transforms = [
        BatchTransform(group, view, device) for group in recipe.views for view in range(group.count)
    ]
    return _batches(ragged.batches(paths, workers, batch_size, device), transforms)


def _batches(decoded: Iterator[list[Tensor]], transforms: list[BatchTransform]) -> Batches:
    for images in decoded:
        floats = [image.float().div_(255) for image in images]
        yield [view for transform in transforms for view in transform(floats)]


class BatchTransform:
    """Make one view of a group, or the cells of one grid, of a batch."""

    def __init__(self, group: Views, view: int, device: str) -> None:
        import kornia.augmentation as K

        self._crop = nn.Sequential(*crop(group))
        self._flip = K.RandomHorizontalFlip(chance_of(group.flip, view))
        self._colour = nn.Sequential(*_colours(group, view))
        self._cell, self._normalise = group.size, Normalise(group, device)

    def __call__(self, images: list[Tensor]) -> list[Tensor]:
        dense = self._flip(torch.stack([self._crop(image) for image in images]))
        return [self._normalise(self._colour(cell)) for cell in cells(dense, self._cell)]


def _colours(group: Views, view: int) -> list[Any]:
    import kornia.augmentation as K

    steps = _jitter(group.colour, view) if group.colour else []
    if group.blur:
        steps.append(_blur(group.blur, chance_of(group.blur.p, view)))
    if (chance := chance_of(group.solarise, view)) > 0:
        half = (128 / 255, 128 / 255)
        steps.append(K.RandomSolarize(thresholds=half, additions=(0.0, 0.0), p=chance))
    return steps


def _jitter(colour: Colour, view: int) -> list[Any]:
    import kornia.augmentation as K

    strengths = colour.brightness, colour.contrast, colour.saturation, colour.hue
    jitter = K.ColorJitter(*strengths, p=chance_of(colour.p, view))
    grey = K.RandomGrayscale(p=chance_of(colour.grey, view))
    return [grey, jitter] if colour.grey_first else [jitter, grey]


def _blur(blur: Blur, chance: float) -> Any:
    import kornia.augmentation as K

    side = blur.kernel or 2 * math.ceil(3 * blur.sigma[1]) + 1
    return K.RandomGaussianBlur((side, side), blur.sigma, p=chance)
