"""kornia's augmentations on a GPU, each for a whole batch, with parameters drawn for each image.

kornia takes dense batches only, so that something has to come before it. Resizing all images to one
shape first would lose what small crops show, and draw other crops; so each image is cropped on the
GPU by torchvision's RandomResizedCrop, antialiased, which is one resize for each view, and the
crops are what kornia gets. kornia's own crop, which also goes image by image, has no antialiasing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from patchmill.benchmarks.peers import Batches, ragged
from patchmill.benchmarks.peers.torchvision_gpu import Finish, cells, crop
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Blur, Colour, Recipe, Views, chance_of

NOTE = (
    "gets crops from torchvision, image by image, for it takes dense batches only; it jitters a "
    "whole batch in one order, and blurs with one width of window"
)
DEVICES = {"cpu": "it is for GPUs", "cuda": ""}


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
            raise MillError(f"the kornia peer cannot turn view group {group.name!r}")
    makers = [Maker(group, view, device) for group in recipe.views for view in range(group.count)]
    return _batches(ragged.batches(paths, workers, batch_size, device), makers)


def _batches(decoded: Iterator[list[Tensor]], makers: list[Maker]) -> Batches:
    for images in decoded:
        floats = [image.float().div_(255) for image in images]
        yield [view for maker in makers for view in maker(floats)]


class Maker:
    """One view of a group, or the cells of one grid, of a batch."""

    def __init__(self, group: Views, view: int, device: str) -> None:
        import kornia.augmentation as K

        self._crop = nn.Sequential(*crop(group))
        self._flip = K.RandomHorizontalFlip(chance_of(group.flip, view))
        self._colour = nn.Sequential(*_colours(group, view))
        self._cell, self._finish = group.size, Finish(group, device)

    def __call__(self, images: list[Tensor]) -> list[Tensor]:
        dense = self._flip(torch.stack([self._crop(image) for image in images]))
        return [self._finish(self._colour(cell)) for cell in cells(dense, self._cell)]


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
