"""Rotation by any angle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from patchmill.loaders.operation import Operation, operation
from patchmill.loaders.operations.draws import Draws, to_device
from patchmill.loaders.operations.ranges import check_range
from patchmill.loaders.recipe_parts import Chance, Range


@operation
@dataclass(frozen=True)
class Rotation(Operation):
    """Rotate a view about its centre, as torchvision's RandomRotation and `rotate` do.

    The view keeps its size. `batch.geometry` describes views before rotation. Pixels at the edge
    are blended with the fill, which torchvision does twice if it is given a fill.
    """

    moves: ClassVar[bool] = True
    p: Chance = 0.5
    degrees: Range = (-30.0, 30.0)  # counter-clockwise, uniform
    scale: Range = (1.0, 1.0)  # of the content, uniform: above 1 enlarges
    fit: bool = False  # enlarge, in addition to `scale`, until no corner is empty
    fill: tuple[float, float, float] | None = None  # of corners, 0 to 1; by default the mean
    interpolation: Literal["bilinear", "nearest"] = "bilinear"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "degrees", least=-360, most=360)
        check_range(self, "scale", above=0)

    def __call__(self, views: Tensor, draws: Draws) -> Tensor:
        numbers = draws.numbers(2)
        low, high = self.degrees
        angle = (low + numbers[:, 0] * (high - low)) * (math.pi / 180)
        scale = self.scale[0] + numbers[:, 1] * (self.scale[1] - self.scale[0])
        cos, sin = torch.from_numpy(angle).cos(), torch.from_numpy(angle).sin()
        scales = torch.from_numpy(scale)
        if self.fit:
            scales = scales * (cos.abs() + sin.abs())
        matrix = torch.stack((cos, -sin, 0 * cos, sin, cos, 0 * cos), -1) / scales[:, None]
        theta = to_device(matrix.float().view(-1, 2, 3).numpy(), views.device)
        fill = torch.tensor(draws.group.mean if self.fill is None else self.fill)
        fill = to_device(fill.numpy(), views.device).view(1, 3, 1, 1)
        grid = functional.affine_grid(theta, list(views.shape), align_corners=False)
        # Relative to the fill, so that zero padding becomes the fill.
        turned = functional.grid_sample(
            views - fill, grid, self.interpolation, padding_mode="zeros", align_corners=False
        )
        return turned + fill
