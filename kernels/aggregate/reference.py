"""Reference implementation of aggregation in plain PyTorch, differentiable by autograd."""

from __future__ import annotations

import torch

EPS = 1e-12  # vectors up to this length count as zeros


def aggregate(
    embeddings: torch.Tensor,
    index: torch.Tensor,
    images: int,
    normalise: str = "none",
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """[P, d] to [B, d]:  m_b = sum over p of image b of w_p e_p  /  sum over the same of w_p.

    e_p is a row, for "each" the row divided by its length; w_p is 1 without weights; for "mean" the
    result is m_b divided by its length. Vectors of length up to EPS give zeros, and so do images
    whose weights sum to zero, such as those without patches.
    """
    dtype = torch.float64 if embeddings.dtype == torch.float64 else torch.float32
    rows = embeddings.to(dtype)
    if normalise == "each":
        rows = unit_rows(rows)
    scale = rows.new_ones(len(rows)) if weights is None else weights.to(dtype)
    sums = rows.new_zeros(images, rows.shape[1]).index_add(0, index, rows * scale[:, None])
    totals = rows.new_zeros(images).index_add(0, index, scale)[:, None]
    means = torch.where(totals == 0, 0, sums / torch.where(totals == 0, 1, totals))
    return unit_rows(means) if normalise == "mean" else means


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows divided by their length; zeros, without a gradient, if it is at most EPS."""
    squares = rows.square().sum(1, keepdim=True)
    short = squares.sqrt() <= EPS
    return torch.where(short, 0, rows / torch.where(short, 1, squares).sqrt())
