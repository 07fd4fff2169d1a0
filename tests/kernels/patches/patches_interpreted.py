"""The GPU's kernels against the CPU's and the reference, by Triton's interpreter on CPU tensors.

TRITON_INTERPRET=1 python -m pytest tests/kernels/patches/patches_interpreted.py
"""

from __future__ import annotations

from typing import Any

import helpers_interpreter
import pytest
import torch

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from helpers_patches import FLOATS, NORMALISE, assert_right, make, results

from patchmill.kernels import patches
from patchmill.kernels.patches import cpu_grid, gpu_grid, gpu_mean, operators, reference

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
WINDOWS = [(1, 1), (5, 3), (9, 2), (4, 7)]  # sizes and strides
LAYOUTS = {
    "planes": lambda images: images,
    "channels last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "every other": lambda images: images.repeat_interleave(2, 3)[..., ::2],
}


# ------------------------------------------------------------------------------------ grids


@pytest.mark.parametrize("kind", (torch.uint8, *FLOATS))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size, stride", WINDOWS)
def test_grids(size: int, stride: int, layout: str, kind: torch.dtype):
    random = torch.Generator().manual_seed(0)
    images = LAYOUTS[layout](torch.randint(0, 256, (2, 3, 14, 11), generator=random).to(kind))
    for out in FLOATS if stride == 3 else (kind if kind.is_floating_point else torch.float32,):
        found = gpu_grid.cut(images, size, stride, MEAN, STD, out)
        expected = reference.grid(list(images), size, stride, MEAN, STD)
        close = {"rtol": 2 * torch.finfo(out).eps, "atol": 1e-6 * expected.abs().max().item()}
        torch.testing.assert_close(found.float(), expected, **close)


def test_floats_without_a_mean_are_copied():
    images = torch.randn(2, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    images[0, 0, 0, 0], images[1, 1, 8, 8] = torch.nan, torch.inf
    found = gpu_grid.cut(images, 3, 2, None, None, torch.float32)
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
    its = patches.grid(images, size, stride, mean=MEAN, std=STD)
    found = gpu_grid.cut_ragged(images, its.index, its.positions, size, MEAN, STD, torch.float32)
    torch.testing.assert_close(found, its.patches, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("size, stride", WINDOWS)
def test_folds(size: int, stride: int, kind: torch.dtype):
    shape, random = (2, 2, 14, 11), torch.Generator().manual_seed(0)
    count = len(patches.grid(torch.zeros(shape), size, stride).index)
    gradient = torch.randn(count, 2, size, size, generator=random).to(kind)
    for std in (None, STD[:2]):
        found = gpu_grid.fold(gradient, shape, size, stride, std, kind)
        expected = cpu_grid.fold(gradient, shape, size, stride, std, kind)
        torch.testing.assert_close(found, expected, rtol=2 * torch.finfo(kind).eps, atol=1e-4)


# ------------------------------------------------------------------------------------ means


@pytest.fixture(autouse=True)
def kernels_of_the_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operators, "_on", lambda tensor: gpu_mean)


def by_face(case: Any, normalise: Any) -> list[torch.Tensor]:
    whose = {"index": case.index, "images": case.images, "normalise": normalise}
    return results(lambda rows, weights: patches.aggregate(rows, weights=weights, **whose), case)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "d, dtype", [(1, torch.float32), (37, torch.float32), (37, torch.float16), (64, torch.bfloat16)]
)
def test_means_and_all_gradients(
    d: int, weighted: bool, normalise: str, dtype: torch.dtype, splits: int,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(gpu_mean, "parts", lambda *_: splits)
    case = make([3, 0, 71, 1, 2], d, dtype, weighted, mixed=True, seed=d)
    assert_right(by_face(case, normalise), case, normalise)


def test_long_rows(monkeypatch: pytest.MonkeyPatch):
    for d, splits in ((4097, 1), (4096, 2), (9001, 2)):
        monkeypatch.setattr(gpu_mean, "parts", lambda *_, splits=splits: splits)
        case = make([3, 2], d, torch.float32, True, mixed=False)
        assert_right(by_face(case, "each"), case, "each")


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("splits", [1, 2])
def test_rows_without_direction_and_not_finite(
    splits: int, normalise: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpu_mean, "parts", lambda *_: splits)
    rows = torch.zeros(8, 5)
    rows[6:] = torch.tensor([[1, 2, torch.inf, 4, 5], [1, torch.nan, 3, 4, 5]])
    rows.requires_grad_()
    means = patches.aggregate(rows, [4, 0, 2, 1, 1], normalise=normalise)
    means.sum().backward()
    assert not means[:3].any() and rows.grad[:6].isfinite().all()
    assert rows.grad[:6].any() == (normalise == "none")
    assert not means[3, 2].isfinite() and means[4, 1].isnan()


def test_parts_are_as_many_as_keep_a_gpu_busy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_mean, "INTERPRETED_MULTIPROCESSORS", 132)
    device = torch.device("cpu")
    assert gpu_mean.parts(4096, 4096 * 256, 512, device) == 1
    assert gpu_mean.parts(256, 256 * 256, 512, device) == 5
    assert gpu_mean.parts(1, 256, 512, device) == 8
    assert gpu_mean.parts(1, 3, 512, device) == gpu_mean.parts(3, 0, 1, device) == 1


def test_too_long_rows_are_refused():
    with pytest.raises(ValueError, match="at most 32768 numbers, not 40000"):
        patches.aggregate(torch.zeros(2, 40000), [2])
