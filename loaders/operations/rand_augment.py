"""RandAugment: a few operations per view, drawn from fourteen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from patchmill.loaders.common.settings import Bounds
from patchmill.loaders.operation import Operation, operation
from patchmill.loaders.operations.colour import to_levels
from patchmill.loaders.operations.draws import Draws
from patchmill.loaders.recipe_parts import Chance

MOST = 30  # magnitude


@operation
@dataclass(frozen=True)
class RandAugment(Operation):
    """RandAugment (Cubuk et al., 2020) as in torchvision, on 8-bit views, with its functions.

    With `deviation`, magnitudes are normally distributed around `magnitude`, as with timm's mstd.
    timm's `rand-m9-mstd0.5`, whose magnitudes end at 10, is magnitude=27, deviation=1.5 here, with
    slightly different ranges.
    """

    moves: ClassVar[bool] = True
    p: Chance = 1.0
    layers: Annotated[int, Bounds(1, 16)] = 2  # operations in sequence
    magnitude: Annotated[float, Bounds(0, MOST)] = 9.0
    deviation: Annotated[float, Bounds(0, MOST)] = 0.0  # of the magnitude
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    fill: tuple[float, float, float] | None = None  # of corners, 0 to 1; by default the mean

    def __call__(self, views: Tensor, draws: Draws) -> Tensor:
        numbers = draws.numbers(3 * self.layers).reshape(len(views), self.layers, 3).tolist()
        levels = to_levels(views).to(torch.uint8)
        for index, layers in enumerate(numbers):
            view = levels[index]
            for which, sign, deviation in layers:
                change, most = CHANGES[int(which * len(CHANGES))]
                share = self._magnitude(deviation) / MOST
                amount = share * most * (-1 if sign <= 0.5 else 1)
                view = change(view, amount, self._geometry(draws))
            levels[index] = view
        return levels.float().div_(255)

    def _magnitude(self, number: float) -> float:
        normal = NormalDist().inv_cdf(min(max(number, 1e-9), 1 - 1e-9))
        return min(max(self.magnitude + self.deviation * normal, 0.0), float(MOST))

    def _geometry(self, draws: Draws) -> dict[str, Any]:
        """Arguments of torchvision's geometric functions."""
        from torchvision.transforms import InterpolationMode

        fill = draws.group.mean if self.fill is None else self.fill
        return {
            "interpolation": InterpolationMode(self.interpolation),
            "fill": [round(255 * value) for value in fill],
        }


Change = Callable[[Tensor, float, dict[str, Any]], Tensor]  # of a view, by an amount


def _plain(name: str) -> Change:
    """Wrap a torchvision function without an amount."""
    return lambda view, amount, geometry: getattr(_torchvision(), name)(view)


def _factor(name: str) -> Change:
    """Wrap a torchvision function that takes a factor: 1 changes nothing."""
    return lambda view, amount, geometry: getattr(_torchvision(), name)(view, 1 + amount)


def _shear(vertical: bool) -> Change:
    def change(view: Tensor, amount: float, geometry: dict[str, Any]) -> Tensor:
        shear = [0.0, 0.0]
        shear[vertical] = math.degrees(math.atan(amount))
        return _torchvision().affine(view, 0.0, [0, 0], 1.0, shear, center=[0, 0], **geometry)

    return change


def _translate(vertical: bool) -> Change:
    def change(view: Tensor, amount: float, geometry: dict[str, Any]) -> Tensor:
        by = [0, 0]
        by[vertical] = int(amount * view.shape[-1])
        return _torchvision().affine(view, 0.0, by, 1.0, [0.0, 0.0], **geometry)

    return change


def _rotate(view: Tensor, amount: float, geometry: dict[str, Any]) -> Tensor:
    return _torchvision().rotate(view, amount, **geometry)


def _posterise(view: Tensor, amount: float, geometry: dict[str, Any]) -> Tensor:
    return _torchvision().posterize(view, round(8 - abs(amount)))


def _solarise(view: Tensor, amount: float, geometry: dict[str, Any]) -> Tensor:
    return _torchvision().solarize(view, 255 * (1 - abs(amount)))


def _torchvision() -> Any:
    from torchvision.transforms.v2 import functional

    return functional


# The change and its largest amount, in torchvision's order, which the random choice depends on.
CHANGES: tuple[tuple[Change, float], ...] = (
    (lambda view, amount, geometry: view, 0.0),
    (_shear(vertical=False), 0.3),
    (_shear(vertical=True), 0.3),
    (_translate(vertical=False), 150 / 331),
    (_translate(vertical=True), 150 / 331),
    (_rotate, 30.0),
    (_factor("adjust_brightness"), 0.9),
    (_factor("adjust_saturation"), 0.9),
    (_factor("adjust_contrast"), 0.9),
    (_factor("adjust_sharpness"), 0.9),
    (_posterise, 4.0),
    (_solarise, 1.0),
    (_plain("autocontrast"), 0.0),
    (_plain("equalize"), 0.0),
)
