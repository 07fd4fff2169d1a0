"""Hand-written OpenCV and NumPy in DataLoader workers: one decode, then a few calls per view.

Views stay uint8 until the last step; lookup tables replace arithmetic where that is faster in
OpenCV; and the resize is the plain one, as area interpolation takes six times as long.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchmill.benchmarks.peers import Batches
from patchmill.benchmarks.peers.workers import FileViews, endless
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import (
    Blur,
    Centre,
    Colour,
    Crop,
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

Step = Callable[[np.ndarray], np.ndarray]  # of uint8 [height, width, 3]

_LEVELS = np.arange(256)
_SOLARISED = np.where(_LEVELS < 128, _LEVELS, 255 - _LEVELS).astype(np.uint8)


def available() -> str | None:
    try:
        import cv2  # noqa: F401
    except ImportError:
        return "OpenCV is not installed: pip install 'patchmill[peers]'"
    return None


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    return endless(FileViews(paths, decode, transforms(recipe)), workers, batch_size, start_worker)


def transforms(recipe: Recipe) -> list[ViewTransform]:
    return [ViewTransform(group, view) for group in recipe.views for view in range(group.count)]


def decode(path: str) -> np.ndarray:
    import simplejpeg

    return simplejpeg.decode_jpeg(Path(path).read_bytes(), "RGB")


def start_worker(views: FileViews) -> None:
    import cv2

    cv2.setNumThreads(0)


class ViewTransform:
    """Make one view of a group, or the cells of one grid."""

    def __init__(self, group: Views, view: int) -> None:
        self._crop = _crop(group)
        self._colours = _colours(group, view)
        self._flip, self._turns = chance_of(group.flip, view), group.turns
        self._cell = group.size
        mean, std = np.array(group.mean, np.float32), np.array(group.std, np.float32)
        self._scale, self._offset = (1 / (255 * std)).tolist(), (mean / std).tolist()

    def __call__(self, image: np.ndarray) -> list[Tensor]:
        import cv2

        view = self._crop(image)
        if random.random() < self._flip:
            view = cv2.flip(view, 1)
        if self._turns:
            view = np.ascontiguousarray(np.rot90(view, random.randrange(4)))
        return [self._finish(cell) for cell in cells(view, self._cell)]

    def _finish(self, view: np.ndarray) -> Tensor:
        import cv2

        for chance, step in self._colours:
            if random.random() < chance:
                view = step(view)
        out = np.empty((3, *view.shape[:2]), np.float32)
        for channel, plane in enumerate(cv2.split(view)):
            np.multiply(plane, self._scale[channel], out=out[channel], dtype=np.float32)
            out[channel] -= self._offset[channel]
        return torch.from_numpy(out)


def cells(view: np.ndarray, side: int) -> list[np.ndarray]:
    """The cells of a view row by row; a view that is not a grid is its only cell."""
    height, width = view.shape[:2]
    if (height, width) == (side, side):
        return [view]
    return [
        np.ascontiguousarray(view[y : y + side, x : x + side])
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


# ----------------------------------------------------------------------------------------- geometry


def interpolation(group: Views) -> int:
    import cv2

    return cv2.INTER_CUBIC if group.interpolation == "bicubic" else cv2.INTER_LINEAR


def _crop(group: Views) -> Step:
    import cv2

    if isinstance(group.crop, Spread):
        raise MillError(
            f"the opencv peer makes no evenly spaced windows, which view group {group.name!r} needs"
        )
    grid = group.crop if isinstance(group.crop, Grid) else Grid(1, 1, group.crop)
    law, height, width = grid.of, group.size * grid.rows, group.size * grid.columns
    kind = interpolation(group)

    def placed(image: np.ndarray, centred: bool = False) -> np.ndarray:
        free = image.shape[0] - height, image.shape[1] - width
        y, x = (side // 2 if centred else random.randint(0, side) for side in free)
        return np.ascontiguousarray(image[y : y + height, x : x + width])

    if isinstance(law, Window | Centre):
        short_side, centred = law.short_side, isinstance(law, Centre)

        def window_of_resized(image: np.ndarray) -> np.ndarray:
            scale = short_side / min(image.shape[:2])
            size = [max(short_side, int(side * scale)) for side in image.shape[1::-1]]
            return placed(cv2.resize(image, size, interpolation=kind), centred)

        return window_of_resized

    if isinstance(law, Shift):
        pad = law.pad

        def shifted(image: np.ndarray) -> np.ndarray:
            resized = cv2.resize(image, (width, height), interpolation=kind)
            return placed(cv2.copyMakeBorder(resized, pad, pad, pad, pad, cv2.BORDER_CONSTANT))

        return shifted

    def resized_crop(image: np.ndarray) -> np.ndarray:
        y, x, h, w = _box(image.shape[0], image.shape[1], law)
        return cv2.resize(image[y : y + h, x : x + w], (width, height), interpolation=kind)

    return resized_crop


def _box(height: int, width: int, law: Crop) -> tuple[int, int, int, int]:
    """A box drawn as in torchvision's RandomResizedCrop: y, x, height, width."""
    for _ in range(10):
        area = height * width * random.uniform(*law.scale)
        aspect = math.exp(random.uniform(*map(math.log, law.ratio)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    aspect = min(max(width / height, law.ratio[0]), law.ratio[1])
    h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
    return (height - h) // 2, (width - w) // 2, h, w


# ------------------------------------------------------------------------------------------- colour


def _colours(group: Views, view: int) -> Sequence[tuple[float, Step]]:
    """Steps with their probabilities."""
    import cv2

    steps: list[tuple[float, Step]] = []
    if group.colour:
        jitter = chance_of(group.colour.p, view), _Jitter(group.colour)
        grey = chance_of(group.colour.grey, view), _grey
        steps += [grey, jitter] if group.colour.grey_first else [jitter, grey]
    if group.blur:
        steps.append((chance_of(group.blur.p, view), _Blur(group.blur)))
    if (chance := chance_of(group.solarise, view)) > 0:
        steps.append((chance, lambda image: cv2.LUT(image, _SOLARISED)))
    return steps


def _grey(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


class _Jitter:
    """Brightness, contrast, saturation and hue, in random order; strengths of 0 are skipped."""

    def __init__(self, colour: Colour) -> None:
        self._steps: list[tuple[Callable[[np.ndarray, float], Any], float, float]] = [
            (step, max(0.0, 1 - strength), 1 + strength)
            for step, strength in [
                (_brightness, colour.brightness),
                (_contrast, colour.contrast),
                (_saturation, colour.saturation),
            ]
            if strength
        ]
        if colour.hue:
            self._steps.append((_shift_hue, -colour.hue, colour.hue))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        for step, low, high in random.sample(self._steps, len(self._steps)):
            image = step(image, random.uniform(low, high))
        return image


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    import cv2

    return cv2.convertScaleAbs(image, alpha=factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    import cv2

    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    table = np.clip(np.rint(factor * _LEVELS + (1 - factor) * mean), 0, 255)
    return cv2.LUT(image, table.astype(np.uint8))


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    import cv2

    return cv2.addWeighted(image, factor, _grey(image), 1 - factor, 0)


def _shift_hue(image: np.ndarray, turns: float) -> np.ndarray:
    import cv2

    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)  # a turn is 256 levels: bytes wrap around
    hsv[..., 0] += np.uint8(round(256 * turns) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


class _Blur:
    def __init__(self, blur: Blur) -> None:
        self._sigma, self._side = blur.sigma, blur.kernel

    def __call__(self, image: np.ndarray) -> np.ndarray:
        import cv2

        sigma = random.uniform(*self._sigma)
        side = self._side or 2 * math.ceil(3 * sigma) + 1
        return cv2.GaussianBlur(image, (side, side), sigma)
