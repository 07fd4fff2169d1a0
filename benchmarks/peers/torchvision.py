"""torchvision on PIL images in DataLoader workers, as in DINO's main_dino.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from patchmill.benchmarks.peers import Batches
from patchmill.benchmarks.peers.workers import FileViews, endless
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import (
    Blur,
    Centre,
    Colour,
    Grid,
    Recipe,
    Shift,
    Spread,
    Views,
    Window,
    chance_of,
)

NOTE = ""
DEVICES = {"cpu": "", "cuda": ""}
DECODER, ANTIALIASED = "Pillow", True

Transform = Callable[[Image.Image], Image.Image]


def available() -> str | None:
    return None


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    """For a GPU, the same workers make the views, which are pinned and uploaded concurrently."""
    on_cpu = device == "cpu"
    batches = endless(ViewDataset(paths, recipe), workers, batch_size, pin_memory=not on_cpu)
    return batches if on_cpu else (_upload(batch, device) for batch in batches)


def _upload(batch: list[Tensor], device: str) -> list[Tensor]:
    return [views.to(device, non_blocking=True).bfloat16() for views in batch]


class ViewDataset(FileViews):
    def __init__(self, paths: list[str], recipe: Recipe):
        transforms = [
            ViewTransform(group, view) for group in recipe.views for view in range(group.count)
        ]
        super().__init__(paths, _decode, transforms)


def _decode(path: str) -> Image.Image:
    return Image.open(path).convert("RGB")


class ViewTransform:
    """Make one view of a group, or the cells of one grid."""

    def __init__(self, group: Views, view: int):
        self.cell = group.size
        flip = transforms.RandomHorizontalFlip(chance_of(group.flip, view))
        turns = [QuarterTurns()] if group.turns else []
        self.geometry = transforms.Compose([*geometry(group, transforms), flip, *turns])
        self.colour = transforms.Compose(
            [
                *_colours(group, view),
                transforms.ToTensor(),
                transforms.Normalize(group.mean, group.std),
            ]
        )

    def __call__(self, image: Image.Image) -> list[Tensor]:
        view = self.geometry(image)
        cells = [
            view.crop((x, y, x + self.cell, y + self.cell))
            for y in range(0, view.height, self.cell)
            for x in range(0, view.width, self.cell)
        ]
        return [self.colour(cell) for cell in (cells if len(cells) > 1 else [view])]


def geometry(group: Views, transforms: Any) -> list[Any]:
    """Steps of the crop, without the flip, for torchvision's v1 or v2 `transforms`."""
    if isinstance(group.crop, Spread):
        raise MillError(
            f"torchvision has no evenly spaced windows, which view group {group.name!r} needs"
        )
    grid = group.crop if isinstance(group.crop, Grid) else Grid(1, 1, group.crop)
    law = grid.of
    shape = (group.size * grid.rows, group.size * grid.columns)
    interpolation = InterpolationMode(group.interpolation)
    if isinstance(law, Window):
        return [transforms.Resize(law.short_side, interpolation), transforms.RandomCrop(shape)]
    if isinstance(law, Centre):
        return [transforms.Resize(law.short_side, interpolation), transforms.CenterCrop(shape)]
    if isinstance(law, Shift):
        return [transforms.Resize(shape, interpolation), transforms.RandomCrop(shape, law.pad)]
    return [transforms.RandomResizedCrop(shape, law.scale, law.ratio, interpolation)]


def jitter(colour: Colour, view: int, transforms: Any) -> list[Any]:
    """Steps of the colour jitter and greyscale, in the recipe's order."""
    strengths = colour.brightness, colour.contrast, colour.saturation, colour.hue
    colour_jitter = transforms.ColorJitter(*strengths)
    steps = [
        transforms.RandomApply([colour_jitter], chance_of(colour.p, view)),
        transforms.RandomGrayscale(chance_of(colour.grey, view)),
    ]
    return steps[::-1] if colour.grey_first else steps


def _colours(group: Views, view: int) -> list[Transform]:
    steps = jitter(group.colour, view, transforms) if group.colour else []
    if group.blur:
        steps.append(transforms.RandomApply([_blur(group.blur)], chance_of(group.blur.p, view)))
    if chance_of(group.solarise, view) > 0:
        steps.append(transforms.RandomApply([ImageOps.solarize], chance_of(group.solarise, view)))
    return steps


def _blur(blur: Blur) -> Transform:
    """PIL's blur, as in DINO; or torchvision's, if the recipe sets a kernel, as in DINOv2."""
    return transforms.GaussianBlur(blur.kernel, blur.sigma) if blur.kernel else PilBlur(blur.sigma)


class PilBlur:
    def __init__(self, sigma: tuple[float, float]):
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(*self.sigma)))


class QuarterTurns:
    def __call__(self, image: Image.Image) -> Image.Image:
        return transforms.functional.rotate(image, 90 * random.randrange(4))
