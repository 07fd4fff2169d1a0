"""The reference against torchvision's RoI-align, torch.rot90 and cosine_similarity."""

from __future__ import annotations

import pytest
import torch
from helpers_regions import Case, case, expected, expected_losses, ramp
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels.regions import reference

SHAPES = [((2, 3, 9, 7), 4), ((1, 2, 1, 5), 3), ((3, 1, 6, 6), 1), ((2, 2, 14, 14), 10)]


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_pooling_is_roi_align_and_rot90(shape: tuple[int, int, int, int], size: int):
    it = case(shape, size, 40, mirrors=True)
    ours, theirs = it.features.clone().requires_grad_(), it.features.clone().requires_grad_()
    found = reference.pool(ours, it.boxes, it.index, size, *it.orientation)
    right = expected(it, theirs)
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
    (by_ours,) = torch.autograd.grad(found, ours, ramp(found))
    (by_theirs,) = torch.autograd.grad(right, theirs, ramp(right))
    torch.testing.assert_close(by_ours, by_theirs, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    corners=st.lists(st.integers(-700, 1500), min_size=4, max_size=4),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    size=st.integers(1, 7),
    turns=st.integers(-5, 9),
)
def test_any_box(corners: list[int], height: int, width: int, size: int, turns: int):
    features = torch.randn(1, 2, height, width, dtype=torch.float64)
    box = torch.tensor([corners], dtype=torch.float64) / 64
    none = torch.zeros(1, dtype=torch.int64)
    it = Case(features, box, none, size, none + turns, none.bool())
    found = reference.pool(features, box, none, size, *it.orientation)
    torch.testing.assert_close(found, expected(it, features), rtol=1e-11, atol=1e-11)


def test_gradients_of_pooling():
    it = case((2, 2, 4, 5), 3, 6, mirrors=True)
    given = it.boxes, it.index, it.size, *it.orientation
    features = it.features.requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: reference.pool(maps, *given), features)


def test_losses_are_mean_cosines():
    near, far = case((3, 5, 6, 6), 4, 30, seed=1), case((2, 5, 9, 8), 4, 30, seed=2, mirrors=True)
    near.features.requires_grad_()
    found = losses(near, far)
    right = expected_losses(near, far)
    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
    (by_ours,) = torch.autograd.grad(found, near.features, ramp(found))
    (by_theirs,) = torch.autograd.grad(right, near.features, ramp(right))
    torch.testing.assert_close(by_ours, by_theirs, rtol=1e-10, atol=1e-10)


def test_gradients_of_losses():
    # Avoid boxes without extent, where the cosine is discontinuous.
    near, far = case((2, 3, 4, 4), 2, 4, seed=3), case((2, 3, 5, 4), 2, 4, seed=4)
    inside = torch.tensor([[0.5, 0.25, 3.5, 3.0]], dtype=torch.float64).expand(4, 4)
    near, far = near._replace(boxes=inside), far._replace(boxes=inside + 0.5)
    maps = near.features.requires_grad_()
    assert torch.autograd.gradcheck(lambda it: losses(near._replace(features=it), far), maps)


def losses(near: Case, far: Case) -> torch.Tensor:
    return reference.crop_loss(
        near.features, far.features, near.boxes, far.boxes, near.index, far.index, near.size,
        *far.orientation,
    )  # fmt: skip
