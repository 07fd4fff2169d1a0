"""torchvision's v2 transforms on a GPU: a batch is decoded at once, its images treated one by one.

One by one, because a transform draws once for all that it is called with. The pixels of an image
become floats once, which is faster than bytes for every transform but the crop's reading.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from patchmill.benchmarks.peers import Batches, ragged
from patchmill.loaders.recipe import (
    Blur,
    Centre,
    Colour,
    Grid,
    Recipe,
    Shift,
    Views,
    Window,
    chance_of,
)

NOTE = ""
DEVICES = {"cpu": "it is for GPUs; on a CPU take torchvision", "cuda": ""}


def available() -> str | None:
    return None


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    finishes = [Finish(group, device) for group in recipe.views]
    cuts = [[Cut(group, view) for view in range(group.count)] for group in recipe.views]
    decoded = ragged.batches(paths, workers, batch_size, device)
    return _batches(decoded, cuts, finishes)


def _batches(
    decoded: Iterator[list[Tensor]], cuts: Sequence[Sequence[Cut]], finishes: Sequence[Finish]
) -> Batches:
    for images in decoded:
        floats = [image.float().div_(255) for image in images]
        yield [
            finish(torch.stack(cells))
            for group, finish in zip(cuts, finishes, strict=True)
            for cut in group
            for cells in zip(*map(cut, floats), strict=True)
        ]


class Cut:
    """One view of a group, or the cells of one grid, of one image."""

    def __init__(self, group: Views, view: int) -> None:
        flip = v2.RandomHorizontalFlip(chance_of(group.flip, view))
        turns = [QuarterTurns()] if group.turns else []
        self._place = v2.Compose([*geometry(group), flip, *turns])
        self._colour = v2.Compose([nn.Identity(), *_colours(group, view)])
        self._cell = group.size

    def __call__(self, image: Tensor) -> list[Tensor]:
        return [self._colour(cell) for cell in cells(self._place(image), self._cell)]


class Finish:
    """What needs no draw, for a whole batch of views: normalised, and as wide as on this device."""

    def __init__(self, group: Views, device: str) -> None:
        self._mean = torch.tensor(group.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(group.std, device=device).view(3, 1, 1)
        self._dtype = torch.float32 if device == "cpu" else torch.bfloat16

    def __call__(self, views: Tensor) -> Tensor:
        return views.sub(self._mean).div_(self._std).to(self._dtype)


def cells(view: Tensor, side: int) -> list[Tensor]:
    """Row by row; a view that is no grid is its only cell."""
    height, width = view.shape[-2:]
    return [
        view[..., y : y + side, x : x + side]
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def geometry(group: Views) -> list[nn.Module]:
    """The crop of one float image, without its flip."""
    grid = group.crop if isinstance(group.crop, Grid) else Grid(1, 1, group.crop)
    law = grid.of
    shape = (group.size * grid.rows, group.size * grid.columns)
    interpolation = InterpolationMode(group.interpolation)
    clamp: list[nn.Module] = [Clamp()] if group.interpolation == "bicubic" else []
    if isinstance(law, Window):
        return [v2.Resize(law.short_side, interpolation), *clamp, v2.RandomCrop(shape)]
    if isinstance(law, Centre):
        return [v2.Resize(law.short_side, interpolation), *clamp, v2.CenterCrop(shape)]
    if isinstance(law, Shift):
        return [v2.Resize(shape, interpolation), *clamp, v2.RandomCrop(shape, law.pad)]
    return [v2.RandomResizedCrop(shape, law.scale, law.ratio, interpolation), *clamp]


def _colours(group: Views, view: int) -> list[nn.Module]:
    steps = _jitter(group.colour, view) if group.colour else []
    if group.blur:
        steps.append(v2.RandomApply([_blur(group.blur)], chance_of(group.blur.p, view)))
    if chance_of(group.solarise, view) > 0:
        steps.append(v2.RandomSolarize(128 / 255, chance_of(group.solarise, view)))
    return steps


def _jitter(colour: Colour, view: int) -> list[nn.Module]:
    strengths = colour.brightness, colour.contrast, colour.saturation, colour.hue
    jitter = v2.RandomApply([v2.ColorJitter(*strengths)], chance_of(colour.p, view))
    grey = v2.RandomGrayscale(chance_of(colour.grey, view))
    return [grey, jitter] if colour.grey_first else [jitter, grey]


def _blur(blur: Blur) -> nn.Module:
    return v2.GaussianBlur(blur.kernel, blur.sigma) if blur.kernel else WideBlur(blur.sigma)


class WideBlur(nn.Module):
    """As wide as three times the sigma that it draws."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self._sigma = sigma

    def forward(self, image: Tensor) -> Tensor:
        sigma = random.uniform(*self._sigma)
        return v2.functional.gaussian_blur(image, 2 * math.ceil(3 * sigma) + 1, sigma)


class Clamp(nn.Module):
    """Bicubic filters overshoot."""

    def forward(self, image: Tensor) -> Tensor:
        return image.clamp_(0, 1)


class QuarterTurns(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.rot90(random.randrange(4), (-2, -1))
