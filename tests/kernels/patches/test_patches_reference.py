"""The definitions, against formulas written down here once more."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from patchmill.kernels.patches import reference

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
sides = st.integers(1, 12)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, st.integers(1, 5))
def test_a_grid_is_unfold(height: int, width: int, size: int, stride: int):
    height, width = height + size - 1, width + size - 1
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(size))
    expected = images.unfold(2, size, stride).unfold(3, size, stride)
    expected = expected.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, size, size)
    assert torch.equal(reference.grid(list(images), size, stride), expected)


def test_bytes_become_0_to_1_and_are_normalised():
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, 16, 16)
    found = reference.grid([image], 16, 16, MEAN, STD)[0]
    for c in range(3):
        for v in (0, 1, 77, 255):
            expected = (v / 255 - MEAN[c]) / STD[c]
            assert found[c].flatten()[v].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def by_hand(
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
def test_means_by_hand_and_their_gradients(normalise: str, weighted: bool):
    torch.manual_seed(0)
    rows = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([2, 0, 0, 2, 4, 2, 0, 4, 4])
    weights = torch.rand(9, dtype=torch.float64) if weighted else torch.ones(9).double()
    weights.requires_grad_(weighted)

    def ours(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return reference.aggregate(rows, index, 5, normalise, weights if weighted else None)

    torch.testing.assert_close(ours(rows, weights), by_hand(rows, index, 5, normalise, weights))
    assert torch.autograd.gradcheck(ours, (rows, weights))


@pytest.mark.parametrize("normalise", ["none", "each", "mean"])
def test_what_has_no_direction_is_zeros_with_a_finite_gradient(normalise: str):
    rows = torch.zeros(3, 4, requires_grad=True)
    means = reference.aggregate(rows, torch.tensor([0, 0, 2]), 3, normalise)
    means.sum().backward()
    assert not means.any()
    assert rows.grad.isfinite().all()
    assert (normalise == "none") == rows.grad.any()
