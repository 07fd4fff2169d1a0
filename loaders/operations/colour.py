"""Operations on colour and sharpness: posterise, sharpness, gamma, auto-contrast, equalise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from patchmill.loaders.common.settings import Bounds
from patchmill.loaders.operation import Operation, operation
from patchmill.loaders.operations.draws import Draws
from patchmill.loaders.operations.ranges import check_range
from patchmill.loaders.recipe_parts import Chance, Range


@operation
@dataclass(frozen=True)
class Posterise(Operation):
    """Keep the highest bits of every 8-bit value: torchvision's RandomPosterize."""

    p: Chance = 0.5
    bits: Annotated[int, Bounds(1, 8)] = 4

    def __call__(self, views: Tensor, draws: Draws) -> Tensor:
        step = 2 ** (8 - self.bits)
        return to_levels(views).div_(step).floor_().mul_(step / 255)


@operation
@dataclass(frozen=True)
class Sharpness(Operation):
    """Sharpen or soften: torchvision's RandomAdjustSharpness, with the factor drawn uniformly.

    f x + (1 - f) s, clamped, where s is x smoothed by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13 except
    at the border: 0 smooths, 1 changes nothing, 2 sharpens.
    """

    p: Chance = 0.5
    factor: Range = (0.0, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "factor", least=0)

    def __call__(self, views: Tensor, draws: Draws) -> Tensor:
        factor = draws.uniform(1, 1, 1, low=self.factor[0], high=self.factor[1])
        columns = views[..., :-2] + views[..., 1:-1] + views[..., 2:]
        box = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :]
        inner = views[..., 1:-1, 1:-1]
        smooth = box.add_(inner, alpha=4).div_(13)
        smooth.add_((inner - smooth).mul_(factor))
        changed = views.clone()
        changed[..., 1:-1, 1:-1] = smooth
        return changed.clamp_(0, 1)


@operation
@dataclass(frozen=True)
class Gamma(Operation):
    """Raise values to a uniformly drawn power: torchvision's `adjust_gamma`."""

    p: Chance = 0.5
    gamma: Range = (0.5, 1.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "gamma", above=0)

    def __call__(self, views: Tensor, draws: Draws) -> Tensor:
        gamma = draws.uniform(1, 1, 1, low=self.gamma[0], high=self.gamma[1])
        return views.clamp(0, 1).pow_(gamma)


@operation
@dataclass(frozen=True)
class AutoContrast(Operation):
    """Stretch every channel to the whole range, 0 to 1: torchvision's RandomAutocontrast."""

    p: Chance = 0.5

    def __call__(self, views: Tensor, draws: Draws) -> Tensor:
        low, high = views.amin((-2, -1), keepdim=True), views.amax((-2, -1), keepdim=True)
        flat = high == low
        stretched = (views - low).div_(torch.where(flat, 1.0, high - low)).clamp_(0, 1)
        return torch.where(flat, views, stretched)


@operation
@dataclass(frozen=True)
class Equalise(Operation):
    """Equalise the histogram of every channel: torchvision's own RandomEqualize."""

    p: Chance = 0.5

    def __call__(self, views: Tensor, draws: Draws) -> Tensor:
        from torchvision.transforms.v2.functional import equalize

        return equalize(to_levels(views).to(torch.uint8)).float().div_(255)


def to_levels(views: Tensor) -> Tensor:
    """Round values to the whole numbers from 0 to 255, in float32."""
    return (views * 255).round_().clamp_(0, 255)
