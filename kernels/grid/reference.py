"""Reference implementation of grids in plain PyTorch, differentiable by autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from patchmill.kernels.grid.windows import windows_along


def grid(
    images: Sequence[torch.Tensor],
    size: int,
    stride: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Images [C, H, W] to [P, C, size, size]: image[:, y : y + size, x : x + size] for all
    y = i * stride, x = j * stride whose windows lie inside; each value is (v - mean) / std,
    where v is a byte / 255 or the float itself.
    """
    patches = []
    for image in images:
        double = torch.float64 in (image.dtype, dtype)
        value = image.to(torch.float64 if double else torch.float32)
        if image.dtype == torch.uint8:
            value = value / 255
        if mean is not None and std is not None:
            means, stds = (value.new_tensor(values)[:, None, None] for values in (mean, std))
            value = (value - means) / stds
        for i in range(windows_along(image.shape[1], size, stride)):
            for j in range(windows_along(image.shape[2], size, stride)):
                y, x = i * stride, j * stride
                patches.append(value[:, y : y + size, x : x + size].to(dtype))
    return torch.stack(patches)
