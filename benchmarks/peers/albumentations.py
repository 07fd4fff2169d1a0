"""albumentations 2.0.8, the last release under the MIT licence, in DataLoader workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchmill.benchmarks.lib import machine
from patchmill.benchmarks.peers import Batches, opencv
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

NOTE = "resizes without antialiasing"
DEVICES = {"cpu": "", "cuda": "it makes views on a CPU; compare it with --device cpu"}
DECODER, ANTIALIASED = "simplejpeg", False


@dataclass(frozen=True)
class Dialect:
    """Names in which versions differ, and the filter for images that shrink."""

    jitter_range: str  # of brightness, contrast, saturation and hue
    blur_side: str
    blur_sigma: str
    shrink: str | None = None


_DIALECT = Dialect("{}", "blur_limit", "sigma_limit")


def available() -> str | None:
    if machine.version("albumentations"):
        return None
    return "albumentations is not installed: pip install 'patchmill[peers]'"


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    return open_dialect(_DIALECT, paths, recipe, workers, batch_size)


def open_dialect(
    dialect: Dialect, paths: list[str], recipe: Recipe, workers: int, batch_size: int
) -> Batches:
    library = _library()
    transforms = [
        ViewTransform(library, dialect, group, view)
        for group in recipe.views
        for view in range(group.count)
    ]
    return endless(FileViews(paths, opencv.decode, transforms), workers, batch_size, _start)


def _library() -> ModuleType:
    """The library, without its version check and telemetry over the network."""
    os.environ.update(NO_ALBUMENTATIONS_UPDATE="1", ALBUMENTATIONS_NO_TELEMETRY="1")
    import albumentations

    return albumentations


def _start(views: Any) -> None:
    """In each worker: one thread and its own random numbers."""
    opencv.start_worker(views)
    for number, transform in enumerate(views.transforms):
        transform.set_seed((torch.initial_seed() + number) % 2**32)


class ViewTransform:
    """Make one view of a group, or the cells of one grid."""

    def __init__(self, library: Any, dialect: Dialect, group: Views, view: int) -> None:
        geometry = [
            *_geometry(library, dialect, group),
            library.HorizontalFlip(p=chance_of(group.flip, view)),
            *([library.RandomRotate90(p=1.0)] if group.turns else []),
        ]
        colours = [
            *_colours(library, dialect, group, view),
            library.Normalize(group.mean, group.std),
            library.ToTensorV2(),
        ]
        self._cell = group.size
        if isinstance(group.crop, Grid):
            self._steps = [library.Compose(geometry), library.Compose(colours)]
        else:
            self._steps = [library.Compose([*geometry, *colours])]

    def set_seed(self, seed: int) -> None:
        for step in self._steps:
            step.set_random_seed(seed)

    def __call__(self, image: np.ndarray) -> list[Tensor]:
        first, *others = self._steps
        view = first(image=image)["image"]
        if not others:
            return [view]
        return [others[0](image=cell)["image"] for cell in opencv.cells(view, self._cell)]


def _geometry(library: Any, dialect: Dialect, group: Views) -> list[Any]:
    if isinstance(group.crop, Spread):
        raise MillError(
            f"albumentations has no evenly spaced windows, which view group {group.name!r} needs"
        )
    grid = group.crop if isinstance(group.crop, Grid) else Grid(1, 1, group.crop)
    law, height, width = grid.of, group.size * grid.rows, group.size * grid.columns
    filters = {
        "interpolation": opencv.interpolation(group),
        "area_for_downscale": dialect.shrink,
    }
    if isinstance(law, Window | Centre):
        crop: Callable[..., Any] = (
            library.RandomCrop if isinstance(law, Window) else library.CenterCrop
        )
        return [library.SmallestMaxSize(law.short_side, **filters), crop(height, width)]
    if isinstance(law, Shift):
        return [
            library.Resize(height, width, **filters),
            library.Pad(law.pad),
            library.RandomCrop(height, width),
        ]
    return [library.RandomResizedCrop((height, width), law.scale, law.ratio, **filters)]


def _colours(library: Any, dialect: Dialect, group: Views, view: int) -> list[Any]:
    steps = _jitter(library, dialect, group.colour, view) if group.colour else []
    if group.blur:
        steps.append(_blur(library, dialect, group.blur, chance_of(group.blur.p, view)))
    if (chance := chance_of(group.solarise, view)) > 0:
        steps.append(library.Solarize(threshold_range=(0.5, 0.5), p=chance))
    return steps


def _jitter(library: Any, dialect: Dialect, colour: Colour, view: int) -> list[Any]:
    factors = {
        name: (max(0.0, 1 - strength), 1 + strength)
        for name in ("brightness", "contrast", "saturation")
        for strength in [getattr(colour, name)]
    }
    ranges = {**factors, "hue": (-colour.hue, colour.hue)}
    named = {dialect.jitter_range.format(name): limits for name, limits in ranges.items()}
    jitter = library.ColorJitter(**named, p=chance_of(colour.p, view))
    grey = library.ToGray(p=chance_of(colour.grey, view))
    return [grey, jitter] if colour.grey_first else [jitter, grey]


def _blur(library: Any, dialect: Dialect, blur: Blur, chance: float) -> Any:
    side = blur.kernel or 0  # 0: as many taps as each sigma needs
    sides = {dialect.blur_side: (side, side), dialect.blur_sigma: blur.sigma}
    return library.GaussianBlur(**sides, p=chance)
