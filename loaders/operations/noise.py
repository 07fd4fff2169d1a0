"""Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from patchmill.loaders.operation import Operation, operation
from patchmill.loaders.operations.draws import Draws
from patchmill.loaders.operations.ranges import check_range
from patchmill.loaders.recipe_parts import Chance, Range


@operation
@dataclass(frozen=True)
class GaussianNoise(Operation):
    """Add normal noise to every channel of every pixel: torchvision's GaussianNoise, with mean 0.

    The standard deviation is drawn uniformly for each view.
    """

    p: Chance = 0.5
    sigma: Range = (0.1, 0.1)  # relative to the range 0 to 1: 0.1 is 25.5 grey levels
    clip: bool = True  # to 0..1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "sigma", least=0)

    def __call__(self, views: Tensor, draws: Draws) -> Tensor:
        sigma = draws.uniform(1, 1, 1, low=self.sigma[0], high=self.sigma[1])
        noisy = draws.normal(*views.shape[1:]).mul_(sigma).add_(views)
        return noisy.clamp_(0, 1) if self.clip else noisy
