"""Random erasing: rectangles of a view replaced by its mean, a colour or noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from patchmill.loaders.operation import Operation, operation
from patchmill.loaders.operations.draws import Draws
from patchmill.loaders.operations.ranges import check_range
from patchmill.loaders.operations.values import from_normalised
from patchmill.loaders.recipe_parts import Chance, Range

_TRIES = 10

Box = tuple[int, int, int, int]  # top, left, height, width


@operation
@dataclass(frozen=True)
class RandomErasing(Operation):
    """Erase rectangles (Zhong et al., 2020), drawn as in timm's and torchvision's RandomErasing.

    The fill is in normalised values, as in timm: `const` is the group's mean, `rand` one normally
    distributed colour per rectangle, `pixel` normal noise. A rectangle that does not fit is
    redrawn, for at most ten tries.
    """

    normalised: ClassVar[bool] = True
    p: Chance = 0.25
    area: Range = (0.02, 1 / 3)  # total area of all rectangles, as a share of the view
    ratio: Range = (0.3, 10 / 3)  # height over width; its logarithm is uniform
    mode: Literal["const", "rand", "pixel"] = "const"
    count: tuple[int, int] = (1, 1)  # smallest and largest number of rectangles

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "area", above=0, most=1)
        check_range(self, "ratio", above=0)
        check_range(self, "count", above=0, most=16)

    def __call__(self, views: Tensor, draws: Draws) -> Tensor:
        size, most = views.shape[-1], self.count[1]
        numbers = draws.numbers(1 + 4 * _TRIES * most)
        fills = from_normalised(self._fills(draws, size), draws.group, views.dtype)
        for view, view_numbers, fill in zip(views, numbers, fills, strict=True):
            for box_number, (top, left, height, width) in self._boxes(view_numbers, size):
                rows, columns = slice(top, top + height), slice(left, left + width)
                pixels = fill[0, :, rows, columns] if self.mode == "pixel" else fill[box_number]
                view[:, rows, columns] = pixels
        return views

    def _fills(self, draws: Draws, size: int) -> Tensor:
        """Normalised fill of every rectangle: [N, rectangles, 3, 1, 1], or [N, 1, 3, h, w]."""
        most = self.count[1]
        if self.mode == "pixel":
            return draws.normal(1, 3, size, size)
        if self.mode == "rand":
            return draws.normal(most, 3, 1, 1)
        return torch.zeros(len(draws), most, 3, 1, 1, device=draws.device)

    def _boxes(self, numbers: np.ndarray, size: int) -> Iterator[tuple[int, Box]]:
        """Yield the rectangles of one view that fit, with their numbers."""
        low, high = self.count
        count = low + int(numbers[0] * (high - low + 1))
        tries = numbers[1:].reshape(-1, _TRIES, 4)[:count]
        for number, candidates in enumerate(tries):
            for area, ratio, top, left in candidates:
                if (box := self._box(area, ratio, top, left, size, count)) is not None:
                    yield number, box
                    break

    def _box(
        self, area: float, ratio: float, top: float, left: float, size: int, count: int
    ) -> Box | None:
        """A rectangle from four numbers in [0, 1); None if it is no smaller than the view."""
        pixels = (self.area[0] + area * (self.area[1] - self.area[0])) * size * size / count
        least, most = (math.log(bound) for bound in self.ratio)
        aspect = math.exp(least + ratio * (most - least))
        height, width = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if height >= size or width >= size:
            return None
        return int(top * (size - height + 1)), int(left * (size - width + 1)), height, width
