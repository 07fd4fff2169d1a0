"""The reference against loops over patches, and gradcheck."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from patchmill.kernels.aggregate import reference


def by_loops(
    rows: torch.Tensor, index: torch.Tensor, images: int, normalise: str, weights: torch.Tensor
) -> torch.Tensor:
    means = []
    for b in range(images):
        total, weight = torch.zeros_like(rows[0]), torch.zeros_like(weights[0])
        for p in range(len(rows)):
            if index[p] == b:
                row = normalize(rows[p], dim=0) if normalise == "each" else rows[p]
                total, weight = total + weights[p] * row, weight + weights[p]
        mean = total / weight if weight != 0 else torch.zeros_like(total)
        means.append(normalize(mean, dim=0) if normalise == "mean" else mean)
    return torch.stack(means)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("normalise", ["none", "each", "mean"])
def test_means_and_gradients_by_loops(normalise: str, weighted: bool):
    torch.manual_seed(0)
    rows = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([2, 0, 0, 2, 4, 2, 0, 4, 4])
    weights = torch.rand(9, dtype=torch.float64) if weighted else torch.ones(9).double()
    weights.requires_grad_(weighted)

    def ours(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return reference.aggregate(rows, index, 5, normalise, weights if weighted else None)

    torch.testing.assert_close(ours(rows, weights), by_loops(rows, index, 5, normalise, weights))
    assert torch.autograd.gradcheck(ours, (rows, weights))


@pytest.mark.parametrize("normalise", ["none", "each", "mean"])
def test_zero_rows_have_a_finite_gradient(normalise: str):
    rows = torch.zeros(3, 4, requires_grad=True)
    means = reference.aggregate(rows, torch.tensor([0, 0, 2]), 3, normalise)
    means.sum().backward()
    assert not means.any()
    assert rows.grad.isfinite().all()
    assert (normalise == "none") == rows.grad.any()
