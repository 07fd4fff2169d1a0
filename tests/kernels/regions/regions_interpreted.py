"""The Triton kernels, interpreted on CPU tensors, against the reference in float64."""

from __future__ import annotations

import helpers_interpreter
import pytest
import torch
from helpers_regions import TOLERANCES, Case, case, ramp

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from patchmill.kernels.regions import gpu, reference
from patchmill.kernels.regions.pairs import RegionPairs

SHAPES = [
    ((2, 16, 4, 4), 3, 3), ((1, 3, 3, 5), 2, 5), ((2, 17, 1, 7), 2, 4), ((1, 1, 1, 1), 1, 3),
    ((1, 1031, 2, 2), 1, 2),
]  # fmt: skip
FAST = (torch.float32, torch.float16, torch.bfloat16)
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")


def last(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 2, 3, 1).contiguous()


def given(it: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return it.boxes.float(), it.index, it.turns % 4 + 4 * it.mirrors


def close(found: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> None:
    rtol, atol = TOLERANCES[dtype]
    torch.testing.assert_close(found.double(), right, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize(("shape", "size", "count"), SHAPES)
def test_pooling_and_its_gradient(shape: tuple[int, int, int, int], size: int, count: int):
    dtype = FAST[sum(shape) % 3]
    it = case(shape, size, count, mirrors=True)
    features = it.features.to(dtype)
    truth = features.double().requires_grad_()
    right = reference.pool(truth, it.boxes, it.index, size, *it.orientation)
    found = gpu.pool(last(features), *given(it), size)
    close(found, last(right.detach()), dtype)
    gradient = ramp(found)
    (by_truth,) = torch.autograd.grad(last(right), truth, gradient.double())
    by_ours = gpu.pool_backward(gradient, *given(it), (shape[0], *shape[2:]))
    assert found.dtype == by_ours.dtype == dtype
    close(by_ours, last(by_truth), dtype)


@pytest.mark.parametrize(("shape", "size", "count"), SHAPES)
def test_losses_and_their_gradient(shape: tuple[int, int, int, int], size: int, count: int):
    dtype = FAST[sum(shape) % 3]
    near, far = case(shape, size, count, 1), case((2, shape[1], 5, 4), size, count, 2, mirrors=True)
    student, teacher = ((it.features.abs() + 0.5).to(dtype) for it in (near, far))
    truth = student.double().requires_grad_()
    right = reference.crop_loss(
        truth, teacher.double(), near.boxes, far.boxes, near.index, far.index, size,
        *far.orientation,
    )  # fmt: skip
    boxes, _, pose = given(far)
    pairs = RegionPairs(
        last(student), last(teacher), near.boxes.float(), boxes, near.index, far.index, pose
    )
    losses, *scales = gpu.crop_loss(pairs, size)
    close(losses, right.detach(), torch.float32)
    (by_truth,) = torch.autograd.grad(right, truth, ramp(right))
    by_ours = gpu.crop_loss_backward(ramp(losses) / -(size * size), pairs, *scales, size)
    # In the type of the maps, grids' gradients are rounded before they are summed.
    rtol, atol = TOLERANCES[dtype]
    scale = float(by_truth.abs().max())
    torch.testing.assert_close(
        by_ours.double(), last(by_truth), rtol=2 * rtol, atol=atol + rtol * scale
    )


def test_bin_weights():
    it = case((1, 1, 5, 260), 4, 4)
    weights, extents = gpu.bin_weights(it.boxes.float(), (5, 260), 4)
    for axis, pixels in ((0, 5), (1, 260)):
        low, high = it.boxes[:, 1 - axis], it.boxes[:, 3 - axis]
        right = reference.bin_weights(low, high, pixels, 4)
        close(weights[:, axis, :, :pixels], right, torch.float32)
        pixel = torch.arange(pixels)
        first, past = extents[:, axis, :, :1], extents[:, axis, :, 1:]
        assert not right[(pixel < first) | (pixel > past)].any()


def test_missing_maps_are_nan_and_not_read():
    it = case((2, 3, 4, 4), 2, 4)
    index = torch.tensor([0, 2, -1, 1 << 40])
    boxes = torch.tensor([[0.0, 0, 4, 4]]).expand(4, 4).contiguous()
    maps, none = last(it.features.float()), torch.zeros(4, dtype=torch.int64)
    found = gpu.pool(maps, boxes, index, none, 2)
    assert found.flatten(1).isnan().all(1).tolist() == [False, True, True, True]
    assert found[0].isfinite().all()
    assert gpu.pool_backward(
        torch.ones_like(found), boxes, index, none, (2, 4, 4)
    ).sum() == pytest.approx(float(found[0].numel()))
    pairs = RegionPairs(maps, maps, boxes, boxes, none, index, none)
    losses, *_ = gpu.crop_loss(pairs, 2)
    assert losses.isnan().tolist() == [False, True, True, True]


def test_boxes_with_nan_or_inf_give_nan_and_huge_ones_end():
    boxes = torch.tensor(
        [[torch.nan, 0, 3, 3], [0, 0, 3, torch.inf], [-1e20, -1e20, 1e20, 1e20], [2, 2, 2, 3]]
    )
    index = torch.zeros(4, dtype=torch.int64)
    found = gpu.pool(torch.ones(1, 4, 4, 2), boxes, index, index, 3)
    assert found.flatten(1).isnan().all(1).tolist() == [True, True, False, False]
    assert not found[3].any()


def test_no_regions():
    it = case((2, 3, 4, 4), 2, 0)
    maps = last(it.features.float())
    assert gpu.pool(maps, *given(it), 2).shape == (0, 2, 2, 3)
    assert not gpu.pool_backward(maps.new_empty(0, 2, 2, 3), *given(it), (2, 4, 4)).any()
    boxes = it.boxes.float()
    pairs = RegionPairs(maps, maps, boxes, boxes, it.index, it.index, it.turns)
    losses, *scales = gpu.crop_loss(pairs, 2)
    assert losses.shape == (0,)
    assert not gpu.crop_loss_backward(losses, pairs, *scales, 2).any()
