"""Regions of every kind, and torchvision's results for them."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

roi_align = pytest.importorskip("torchvision.ops", reason="needs torchvision").roi_align

# rtol and atol of values and gradients: one rounding, and float32 sums.
TOLERANCES = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (1e-5, 1e-5),
    torch.float16: (1e-3, 1e-4),
    torch.bfloat16: (8e-3, 1e-4),
}


class Case(NamedTuple):
    features: torch.Tensor  # [N, C, H, W] float64
    boxes: torch.Tensor  # [R, 4] float64: multiples of 1/64, which every dtype represents exactly
    index: torch.Tensor
    size: int
    turns: torch.Tensor
    mirrors: torch.Tensor

    @property
    def orientation(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.turns, self.mirrors


def case(
    maps: tuple[int, int, int, int], size: int, regions: int, seed: int = 0, mirrors: bool = False
) -> Case:
    """Boxes within the map, beyond it, around it, empty, and inverted."""
    random = torch.Generator().manual_seed(seed)
    count, _, height, width = maps
    features = torch.randn(maps, generator=random, dtype=torch.float64)
    bounds = torch.tensor([width, height])
    corner = (torch.rand(regions, 2, generator=random) * 1.3 - 0.3) * bounds
    extent = (torch.rand(regions, 2, generator=random) * 1.3 - 0.1) * bounds
    extent[::7] += 2 * bounds
    boxes = torch.cat([corner, corner + extent], 1)
    boxes = (boxes * 64).round().double() / 64
    flat = torch.rand(regions, generator=random) < 0.1
    boxes[flat, 2] = boxes[flat, 0]
    return Case(
        features,
        boxes,
        torch.randint(count, (regions,), generator=random),
        size,
        torch.randint(-4, 8, (regions,), generator=random),
        (torch.rand(regions, generator=random) < 0.5) & mirrors,
    )


def expected(it: Case, features: torch.Tensor) -> torch.Tensor:
    """torchvision's pooling in the dtype of `features`, then flip and rot90 for each region.

    Inverted boxes are made empty: torchvision may raise for them.
    """
    right = torch.maximum(it.boxes[:, 2:], it.boxes[:, :2])
    rows = torch.cat([it.index[:, None], it.boxes[:, :2], right], 1).to(features)
    pooled = roi_align(features, rows, it.size, sampling_ratio=-1, aligned=True)
    found = [
        torch.rot90(grid.flip(2) if mirror else grid, int(turns), (1, 2))
        for grid, turns, mirror in zip(pooled, it.turns, it.mirrors, strict=True)
    ]
    return torch.stack(found)


def expected_losses(near: Case, far: Case) -> torch.Tensor:
    """`crop_loss` from torchvision and torch.nn.functional; the turns are those of `far`."""
    still = near._replace(turns=torch.zeros_like(near.turns), mirrors=near.mirrors & False)
    s, t = expected(still, still.features), expected(far, far.features.detach())
    return -torch.nn.functional.cosine_similarity(s, t, dim=1).mean((1, 2))


def ramp(like: torch.Tensor) -> torch.Tensor:
    """A deterministic incoming gradient, different everywhere."""
    return torch.linspace(-1, 1, like.numel(), dtype=torch.float64).view(like.shape).to(like)
