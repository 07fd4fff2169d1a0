"""Where the windows of a grid lie, and `Patches`, what is cut out there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Patches:
    """Patches of B images, image after image and row by row: P of them in all."""

    patches: torch.Tensor  # [P, C, size, size]
    counts: torch.Tensor  # [B] int64: how many each image has
    index: torch.Tensor  # [P] int64: whose a patch is
    positions: torch.Tensor  # [P, 2] int64: y and x of its corner in the image


def along(length: int, size: int, stride: int) -> int:
    """How many windows lie wholly inside."""
    return (length - size) // stride + 1


def total(shapes: Sequence[tuple[int, int]], size: int, stride: int) -> int:
    return sum(along(h, size, stride) * along(w, size, stride) for h, w in shapes)


def places(
    shapes: Sequence[tuple[int, int]], size: int, stride: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts, index and positions of `Patches`, for images of these heights and widths."""
    if len(set(shapes)) == 1:
        each = corners(*shapes[0], size, stride, device)
        images = torch.arange(len(shapes), device=device)
        counts = torch.full_like(images, len(each))
        return counts, images.repeat_interleave(len(each)), each.repeat(len(shapes), 1)
    sides = [[along(length, size, stride) for length in shape] for shape in shapes]
    table = torch.tensor(sides).to(device, non_blocking=True)  # a GPU is not waited for
    rows, columns = table.unbind(1)
    counts = rows * columns
    patches = total(shapes, size, stride)
    images = torch.arange(len(shapes), device=device)
    index = torch.repeat_interleave(images, counts, output_size=patches)
    number = torch.arange(patches, device=device) - (counts.cumsum(0) - counts)[index]
    wide = columns[index]
    return counts, index, torch.stack([number // wide, number % wide], 1) * stride


def corners(
    height: int, width: int, size: int, stride: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Positions [K, 2] in an image of these sides."""
    down, across = (
        torch.arange(0, length - size + 1, stride, device=device) for length in (height, width)
    )
    return torch.cartesian_prod(down, across)
