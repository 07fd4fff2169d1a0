"""The Triton kernels between protected pages, on random shapes, interpreted."""

from __future__ import annotations

from typing import Any

import helpers_interpreter
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from helpers_guarded_tensors import ENDS, GuardedMemory, random_cases, trouble
from helpers_regions import case, ramp

from patchmill.kernels.regions import gpu, reference
from patchmill.kernels.regions.pairs import RegionPairs

sides, sizes, counts = st.integers(1, 4), st.integers(1, 3), st.integers(1, 2)
channels = st.one_of(st.integers(1, 20), st.sampled_from([33, 1031]))  # the last in two blocks


def last(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 2, 3, 1).contiguous().float()


@random_cases(3)
@given(st.integers(1, 3), channels, sides, sides, sizes, counts)
def pooling(maps: int, channels: int, height: int, width: int, size: int, count: int):
    it = case((maps, channels, height, width), size, count, mirrors=True)
    features = it.features.requires_grad_()
    right = reference.pool(features, it.boxes, it.index, size, *it.orientation)
    gradient = ramp(last(right.detach()))
    (by_maps,) = torch.autograd.grad(right, features, gradient.permute(0, 3, 1, 2).double())
    for at_end in ENDS:
        with GuardedMemory(at_end) as memory:
            there = memory.given(it.boxes.float(), it.index, it.turns % 4 + 4 * it.mirrors)
            found = gpu.pool(*memory.given(last(features.detach())), *there, size)
            grad = gpu.pool_backward(*memory.given(gradient), *there, (maps, height, width))
        torch.testing.assert_close(found, last(right.detach()), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(grad, last(by_maps), rtol=1e-4, atol=1e-4)


@random_cases(3)
@given(channels, sides, sides, sides, sides, sizes, counts)
def losses(
    channels: int, height: int, width: int, teacher_h: int, teacher_w: int, size: int, count: int
):
    near = case((1, channels, height, width), size, count, 1)
    far = case((2, channels, teacher_h, teacher_w), size, count, 2, mirrors=True)
    student = (near.features.abs() + 0.5).requires_grad_()
    teacher = far.features.abs() + 0.5
    right = reference.crop_loss(
        student, teacher, near.boxes, far.boxes, near.index, far.index, size, *far.orientation
    )
    weight = ramp(right.detach())
    (by_student,) = torch.autograd.grad(right, student, weight)
    pose = far.turns % 4 + 4 * far.mirrors
    tensors = last(student.detach()), last(teacher), near.boxes.float(), far.boxes.float()
    for at_end in ENDS:
        with GuardedMemory(at_end) as memory:
            pairs = RegionPairs(*memory.given(*tensors, near.index, far.index, pose))
            (of_cosines,) = memory.given(weight.float() / -(size * size))
            found, *scales = gpu.crop_loss(pairs, size)
            grad = gpu.crop_loss_backward(of_cosines, pairs, *scales, size)
        torch.testing.assert_close(found, right.detach().float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(grad, last(by_student), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("check", [pooling, losses])
def test_no_access_is_out_of_bounds_and_results_are_fully_written(check: Any):
    problem = trouble(check)
    assert problem is None, problem
