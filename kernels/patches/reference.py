"""What patches of a grid and the means of their embeddings are: plain torch, by autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from patchmill.kernels.patches.windows import along

EPS = 1e-12  # a row no longer than this has no direction: it counts as zeros


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
            value = (value - value.new_tensor(mean)[:, None, None]) / value.new_tensor(std)[
                :, None, None
            ]
        for i in range(along(image.shape[1], size, stride)):
            for j in range(along(image.shape[2], size, stride)):
                y, x = i * stride, j * stride
                patches.append(value[:, y : y + size, x : x + size].to(dtype))
    return torch.stack(patches)


def aggregate(
    embeddings: torch.Tensor,
    index: torch.Tensor,
    images: int,
    normalise: str = "none",
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """[P, d] to [B, d]:  m_b = sum over p of image b of w_p e_p  /  sum over the same of w_p.

    e_p is a row, for "each" the row over its length; w_p is 1 without weights; for "mean" the
    result is m_b over its length. What has no length gives zeros, and so does an image whose
    weights sum to zero, as those of one without patches do.
    """
    working = torch.float64 if embeddings.dtype == torch.float64 else torch.float32
    rows = embeddings.to(working)
    if normalise == "each":
        rows = directions(rows)
    scale = rows.new_ones(len(rows)) if weights is None else weights.to(working)
    sums = rows.new_zeros(images, rows.shape[1]).index_add(0, index, rows * scale[:, None])
    totals = rows.new_zeros(images).index_add(0, index, scale)[:, None]
    means = torch.where(totals == 0, 0, sums / torch.where(totals == 0, 1, totals))
    return directions(means) if normalise == "mean" else means


def directions(rows: torch.Tensor) -> torch.Tensor:
    """Each over its length, or zeros, without a gradient, where there is hardly any."""
    squares = rows.square().sum(1, keepdim=True)
    short = squares.sqrt() <= EPS
    return torch.where(short, 0, rows / torch.where(short, 1, squares).sqrt())
