"""The Triton kernels, interpreted on CPU tensors, against the CPU backend and the reference.

TRITON_INTERPRET=1 python -m pytest tests/kernels/grid/grid_interpreted.py
"""

from __future__ import annotations

import helpers_interpreter
import pytest
import torch

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from helpers_aggregate import FLOATS

from patchmill.kernels.grid import cpu, gpu, grid, reference

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
WINDOWS = [(1, 1), (5, 3), (9, 2), (4, 7)]  # sizes and strides
LAYOUTS = {
    "planes": lambda images: images,
    "channels last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "every other": lambda images: images.repeat_interleave(2, 3)[..., ::2],
}


@pytest.mark.parametrize("kind", (torch.uint8, *FLOATS))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size, stride", WINDOWS)
def test_grids(size: int, stride: int, layout: str, kind: torch.dtype):
    random = torch.Generator().manual_seed(0)
    images = LAYOUTS[layout](torch.randint(0, 256, (2, 3, 14, 11), generator=random).to(kind))
    for out in FLOATS if stride == 3 else (kind if kind.is_floating_point else torch.float32,):
        found = gpu.unfold(images, size, stride, MEAN, STD, out)
        expected = reference.grid(list(images), size, stride, MEAN, STD)
        close = {"rtol": 2 * torch.finfo(out).eps, "atol": 1e-6 * expected.abs().max().item()}
        torch.testing.assert_close(found.float(), expected, **close)


def test_floats_without_a_mean_are_copied():
    images = torch.randn(2, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    images[0, 0, 0, 0], images[1, 1, 8, 8] = torch.nan, torch.inf
    found = gpu.unfold(images, 3, 2, None, None, torch.float32)
    expected = reference.grid(list(images), 3, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("size, stride", [(5, 2), (1, 1), (6, 9), (40, 20)])
def test_ragged_grids(size: int, stride: int):
    random = torch.Generator().manual_seed(0)
    shapes = [(size, size), (size + 7, size + 2), (size, size + 11)]
    images = [torch.randint(0, 256, (*it, 3), generator=random).byte() for it in shapes]
    images.append(
        torch.randint(0, 256, (3, 2 * size, size), generator=random).byte().permute(1, 2, 0)
    )
    cut = grid(images, size, stride, mean=MEAN, std=STD)
    found = gpu.unfold_ragged(
        images, cut.index, cut.positions, size, stride, MEAN, STD, torch.float32
    )
    torch.testing.assert_close(found, cut.patches, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("size, stride", WINDOWS)
def test_folds(size: int, stride: int, kind: torch.dtype):
    shape, random = (2, 2, 14, 11), torch.Generator().manual_seed(0)
    count = len(grid(torch.zeros(shape), size, stride).index)
    gradient = torch.randn(count, 2, size, size, generator=random).to(kind)
    for std in (None, STD[:2]):
        found = gpu.fold(gradient, shape, size, stride, std, kind)
        expected = cpu.fold(gradient, shape, size, stride, std, kind)
        torch.testing.assert_close(found, expected, rtol=2 * torch.finfo(kind).eps, atol=1e-4)
