"""Positions of the windows of a grid, and `Patches`: the windows with their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from patchmill.kernels.common.upload import upload


@dataclass(frozen=True)
class Patches:
    """Patches of B images, image by image and row by row: P in all."""

    patches: torch.Tensor  # [P, C, size, size]
    counts: torch.Tensor  # [B] int64: patches of each image
    index: torch.Tensor  # [P] int64: each patch's image
    positions: torch.Tensor  # [P, 2] int64: y and x of the patch's corner in the image


def windows_along(length: int, size: int, stride: int) -> int:
    """Number of windows along one axis that lie wholly inside."""
    return (length - size) // stride + 1


def count_windows(height: int, width: int, size: int, stride: int) -> int:
    """Number of windows of one image."""
    return windows_along(height, size, stride) * windows_along(width, size, stride)


def window_layout(
    shapes: Sequence[tuple[int, int]], size: int, stride: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts, index and positions of `Patches`, for images of these heights and widths."""
    if len(set(shapes)) == 1:
        corners = window_corners(*shapes[0], size, stride, device)
        images = torch.arange(len(shapes), device=device)
        counts = torch.full_like(images, len(corners))
        return counts, images.repeat_interleave(len(corners)), corners.repeat(len(shapes), 1)
    sides = [[windows_along(length, size, stride) for length in shape] for shape in shapes]
    table = upload(torch.tensor(sides), device)
    rows, columns = table.unbind(1)
    counts = rows * columns
    patches = sum(count_windows(*shape, size, stride) for shape in shapes)
    images = torch.arange(len(shapes), device=device)
    index = torch.repeat_interleave(images, counts, output_size=patches)
    number = torch.arange(patches, device=device) - (counts.cumsum(0) - counts)[index]
    width = columns[index]
    return counts, index, torch.stack([number // width, number % width], 1) * stride


def window_corners(
    height: int, width: int, size: int, stride: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """[K, 2] int64: y and x of the windows of one image."""
    y, x = (torch.arange(0, length - size + 1, stride, device=device) for length in (height, width))
    return torch.cartesian_prod(y, x)
