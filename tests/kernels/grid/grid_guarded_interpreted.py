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

from patchmill.kernels.grid import gpu, reference, windows

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LAYOUTS: dict[str, Any] = {
    "planes": lambda images: images,
    "channels last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "every other": lambda images: images.repeat_interleave(2, 3)[..., ::2],
}
sides, strides = st.integers(1, 7), st.integers(1, 9)
more = st.integers(0, 12)  # pixels of an image beyond one patch


@random_cases()
@given(st.integers(1, 3), sides, strides, more, more, st.sampled_from(sorted(LAYOUTS)))
def grids(count: int, size: int, stride: int, taller: int, wider: int, layout: str):
    random = torch.Generator().manual_seed(0)
    shape = count, 3, size + taller, size + wider
    images = LAYOUTS[layout](torch.randint(0, 256, shape, generator=random).byte())
    right = reference.grid(list(images), size, stride, MEAN, STD)
    for at_end in ENDS:
        with GuardedMemory(at_end) as memory:
            (there,) = memory.given(images)
            found = gpu.unfold(there, size, stride, MEAN, STD, torch.float32)
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


@random_cases()
@given(sides, strides, st.lists(st.tuples(more, more), min_size=1, max_size=3))
def ragged_grids(size: int, stride: int, shapes: list[tuple[int, int]]):
    random = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (size + h, size + w, 3), generator=random).byte() for h, w in shapes
    ]
    right = reference.grid([it.permute(2, 0, 1) for it in images], size, stride, MEAN, STD)
    heights_and_widths = [(size + h, size + w) for h, w in shapes]
    _, *where = windows.window_layout(heights_and_widths, size, stride, torch.device("cpu"))
    for at_end in ENDS:
        with GuardedMemory(at_end) as memory:
            index, positions, *there = memory.given(*where, *images)
            found = gpu.unfold_ragged(
                there, index, positions, size, stride, MEAN, STD, torch.float32
            )
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


@random_cases()
@given(st.integers(1, 2), sides, strides, more, more)
def folds(count: int, size: int, stride: int, taller: int, wider: int):
    images = torch.zeros(count, 2, size + taller, size + wider, requires_grad=True)
    patches = reference.grid(list(images), size, stride)
    gradient = torch.randn(patches.shape, generator=torch.Generator().manual_seed(0))
    (right,) = torch.autograd.grad(patches, images, gradient)
    for at_end in ENDS:
        with GuardedMemory(at_end) as memory:
            (there,) = memory.given(gradient)
            found = gpu.fold(there, images.shape, size, stride, None, torch.float32)
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("check", [grids, ragged_grids, folds])
def test_no_access_is_out_of_bounds_and_results_are_fully_written(check: Any):
    problem = trouble(check)
    assert problem is None, problem
