"""torchvision's v2 transforms on a GPU, image by image, after decoding the batch in one call.

A transform draws one set of parameters per call, so one call per image is needed. Images are
converted to float once: all transforms except the crop are faster on floats than on bytes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from patchmill.benchmarks.peers import Batches, ragged
from patchmill.benchmarks.peers.torchvision import geometry, jitter
from patchmill.loaders.recipe import Blur, Recipe, Views, chance_of

NOTE = ""
DEVICES = {"cpu": "it is for GPUs; use torchvision on a CPU", "cuda": ""}
DECODER, ANTIALIASED = "nvJPEG", True


def available() -> str | None:
    return None


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    normalise = [Normalise(group, device) for group in recipe.views]
    transforms = [
        [ImageTransform(group, view) for view in range(group.count)] for group in recipe.views
    ]
    decoded = ragged.batches(paths, workers, batch_size, device)
    return _batches(decoded, transforms, normalise)


def _batches(
    decoded: Iterator[list[Tensor]],
    transforms: Sequence[Sequence[ImageTransform]],
    normalise: Sequence[Normalise],
) -> Batches:
    for images in decoded:
        floats = [image.float().div_(255) for image in images]
        yield [
            group_normalise(torch.stack(view))
            for group, group_normalise in zip(transforms, normalise, strict=True)
            for transform in group
            for view in zip(*map(transform, floats), strict=True)
        ]


class ImageTransform:
    """Make one view of a group, or the cells of one grid, of one image."""

    def __init__(self, group: Views, view: int) -> None:
        flip = v2.RandomHorizontalFlip(chance_of(group.flip, view))
        turns = [QuarterTurns()] if group.turns else []
        self._geometry = v2.Compose([*crop(group), flip, *turns])
        self._colour = v2.Compose([nn.Identity(), *_colours(group, view)])
        self._cell = group.size

    def __call__(self, image: Tensor) -> list[Tensor]:
        return [self._colour(cell) for cell in cells(self._geometry(image), self._cell)]


class Normalise:
    """Normalise a batch of views, and convert it to the device's output type."""

    def __init__(self, group: Views, device: str) -> None:
        self._mean = torch.tensor(group.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(group.std, device=device).view(3, 1, 1)
        self._dtype = torch.float32 if device == "cpu" else torch.bfloat16

    def __call__(self, views: Tensor) -> Tensor:
        return views.sub(self._mean).div_(self._std).to(self._dtype)


def cells(view: Tensor, side: int) -> list[Tensor]:
    """The cells of a view row by row; a view that is not a grid is its only cell."""
    height, width = view.shape[-2:]
    return [
        view[..., y : y + side, x : x + side]
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def crop(group: Views) -> list[nn.Module]:
    """Steps of the crop of a float image, without the flip."""
    first, *others = geometry(group, v2)
    return [first, *([Clamp()] if group.interpolation == "bicubic" else []), *others]


def _colours(group: Views, view: int) -> list[nn.Module]:
    steps = jitter(group.colour, view, v2) if group.colour else []
    if group.blur:
        steps.append(v2.RandomApply([blur(group.blur)], chance_of(group.blur.p, view)))
    if chance_of(group.solarise, view) > 0:
        steps.append(v2.RandomSolarize(128 / 255, chance_of(group.solarise, view)))
    return steps


def blur(blur: Blur) -> nn.Module:
    return v2.GaussianBlur(blur.kernel, blur.sigma) if blur.kernel else ThreeSigmaBlur(blur.sigma)


class ThreeSigmaBlur(nn.Module):
    """Gaussian blur whose window reaches three times the drawn sigma."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self._sigma = sigma

    def forward(self, image: Tensor) -> Tensor:
        sigma = random.uniform(*self._sigma)
        return v2.functional.gaussian_blur(image, 2 * math.ceil(3 * sigma) + 1, sigma)


class Clamp(nn.Module):
    """Clamp to 0..1: bicubic filters overshoot."""

    def forward(self, image: Tensor) -> Tensor:
        return image.clamp_(0, 1)


class QuarterTurns(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.rot90(random.randrange(4), (-2, -1))
