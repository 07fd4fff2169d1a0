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
from torchvision.transforms import v2

from patchmill.benchmarks.peers import Batches, ragged
from patchmill.benchmarks.peers.torchvision import geometry, jitter
from patchmill.loaders.recipe import Blur, Recipe, Views, chance_of

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
            finish(torch.stack(same))
            for group, finish in zip(cuts, finishes, strict=True)
            for cut in group
            for same in zip(*map(cut, floats), strict=True)
        ]


class Cut:
    """One view of a group, or the cells of one grid, of one image."""

    def __init__(self, group: Views, view: int) -> None:
        flip = v2.RandomHorizontalFlip(chance_of(group.flip, view))
        turns = [QuarterTurns()] if group.turns else []
        self._place = v2.Compose([*crop(group), flip, *turns])
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


def crop(group: Views) -> list[nn.Module]:
    """Of one float image, without its flip."""
    first, *others = geometry(group, v2)
    return [first, *([Clamp()] if group.interpolation == "bicubic" else []), *others]


def _colours(group: Views, view: int) -> list[nn.Module]:
    steps = jitter(group.colour, view, v2) if group.colour else []
    if group.blur:
        steps.append(v2.RandomApply([_blur(group.blur)], chance_of(group.blur.p, view)))
    if chance_of(group.solarise, view) > 0:
        steps.append(v2.RandomSolarize(128 / 255, chance_of(group.solarise, view)))
    return steps


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
