"""Regions on a GPU: against torchvision in float64, determinism, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_gpu_memory import peak_extra_memory
from helpers_regions import TOLERANCES, Case, case, expected, expected_losses, ramp

from patchmill.kernels import regions

pytestmark = pytest.mark.gpu

FAST = (torch.float32, torch.float16, torch.bfloat16)
# Maps [N, C, H, W], size of a grid, regions.
SHAPES = [
    ((16, 768, 14, 14), 10, 16), ((64, 768, 6, 6), 4, 128), ((3, 300, 31, 47), 7, 60),
    ((2, 1, 3, 17), 3, 20), ((1, 4096, 2, 2), 2, 5), ((1, 5, 300, 270), 7, 40),
]  # fmt: skip


def cuda(it: Case, dtype: torch.dtype) -> Case:
    boxes, index, size, turns, mirrors = it[1:]
    features = it.features.to(dtype).cuda().requires_grad_()
    return Case(features, boxes.cuda(), index.cuda(), size, turns.cuda(), mirrors.cuda())


def pooled(it: Case) -> torch.Tensor:
    return regions.pool(it.features, it.boxes, it.index, it.size, *it.orientation)


def losses(near: Case, far: Case) -> torch.Tensor:
    return regions.crop_loss(
        near.features, far.features, near.boxes, far.boxes, (near.index, far.index), near.size,
        *far.orientation,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "size", "count"), SHAPES)
def test_pooling(shape: tuple[int, int, int, int], size: int, count: int, dtype: torch.dtype):
    plain = case(shape, size, count, mirrors=True)
    it = cuda(plain, dtype)
    truth = it.features.detach().double().cpu().requires_grad_()
    found, right = pooled(it), expected(plain, truth)
    assert_close(found, right, dtype)
    (by_ours,) = torch.autograd.grad(found, it.features, ramp(found.cpu()).cuda())
    (by_truth,) = torch.autograd.grad(right, truth, ramp(found.cpu()).double())
    assert_close(by_ours, by_truth, dtype)


@pytest.mark.parametrize("dtype", FAST)
@pytest.mark.parametrize(("shape", "size", "count"), SHAPES)
def test_losses(shape: tuple[int, int, int, int], size: int, count: int, dtype: torch.dtype):
    near, far = case(shape, size, count, 1), case((3, shape[1], 9, 8), size, count, 2, mirrors=True)
    near, far = (it._replace(features=it.features.abs() + 0.5) for it in (near, far))
    ours, teacher = cuda(near, dtype), cuda(far, dtype)
    truth = near._replace(features=ours.features.detach().double().cpu().requires_grad_())
    right = expected_losses(truth, far._replace(features=teacher.features.double().cpu()))
    found = losses(ours, teacher)
    torch.testing.assert_close(found.double().cpu(), right, rtol=1e-5, atol=1e-5)
    (by_ours,) = torch.autograd.grad(found, ours.features, ramp(found.cpu()).cuda())
    (by_truth,) = torch.autograd.grad(right, truth.features, ramp(right))
    rtol, atol = TOLERANCES[dtype]  # grids' gradients are rounded before they are summed
    atol += rtol * float(by_truth.abs().max())
    torch.testing.assert_close(by_ours.double().cpu(), by_truth, rtol=2 * rtol, atol=atol)


def test_deterministic():
    near = cuda(case((32, 768, 6, 6), 4, 200, 1), torch.bfloat16)
    far = cuda(case((4, 768, 14, 14), 4, 200, 2, mirrors=True), torch.bfloat16)
    runs = []
    for _ in range(3):
        found, grids = losses(near, far), pooled(near)
        by_loss = torch.autograd.grad(found.sum(), near.features)[0]
        by_grid = torch.autograd.grad(grids, near.features, ramp(grids.detach()))[0]
        runs.append((found, by_loss, grids, by_grid))
    for other in runs[1:]:
        assert all(map(torch.equal, runs[0], other))


def test_no_synchronisation():
    near = cuda(case((8, 64, 6, 6), 4, 20, 1), torch.bfloat16)
    far = cuda(case((4, 64, 14, 14), 4, 20, 2, mirrors=True), torch.bfloat16)
    boxes = torch.rand(2, 3, 4, device="cuda")
    turns = torch.zeros(2, 3, dtype=torch.int64, device="cuda")

    def step() -> None:
        regions.shared(boxes, turns, 224, boxes, turns, 224)
        (losses(near, far).sum() + pooled(near).float().sum()).backward()

    step()  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_missing_maps_are_nan():
    it = cuda(case((2, 8, 4, 4), 2, 3), torch.float32)
    index = torch.tensor([0, 2, -1], device="cuda")
    boxes = torch.tensor([[0.0, 0, 4, 4]], device="cuda").expand(3, 4)
    found = regions.pool(it.features, boxes, index, 2)
    assert found.flatten(1).isnan().all(1).tolist() == [False, True, True]
    assert found[0].isfinite().all()


def test_huge_boxes_terminate():
    boxes = torch.tensor([[torch.nan, 0, 3, 3], [0, 0, torch.inf, 3], [-3e38, -1e20, 3e38, 1e20]])
    index = torch.zeros(3, dtype=torch.int64, device="cuda")
    found = regions.pool(torch.ones(1, 4, 9, 9, device="cuda"), boxes.cuda(), index, 3)
    assert found.flatten(1).isnan().all(1).tolist()[:2] == [True, True]


def test_memory_of_the_loss():
    """Extra memory: a small part of the grids forward, the student's grids backward."""
    near = cuda(case((64, 768, 6, 6), 4, 2048, 1), torch.bfloat16)
    far = cuda(case((16, 768, 14, 14), 4, 2048, 2), torch.bfloat16)
    near, far = (
        it._replace(features=channels_last(it.features)) for it in (near, far)
    )  # fmt: skip
    grids = 2048 * 16 * 768 * 2
    assert peak_extra_memory(lambda: losses(near, far)) < grids / 10
    step: Any = lambda: torch.autograd.grad(losses(near, far).sum(), near.features)  # noqa: E731
    assert peak_extra_memory(step) < 1.2 * grids + 3 * near.features.numel() * 2


def channels_last(features: torch.Tensor) -> torch.Tensor:
    plain = features.detach().contiguous(memory_format=torch.channels_last)
    return plain.requires_grad_()


def test_compiles_without_graph_breaks():
    near = cuda(case((4, 32, 6, 6), 4, 20, 1), torch.float32)
    far = cuda(case((2, 32, 14, 14), 4, 20, 2), torch.float32)
    step = torch.compile(lambda it: losses(near._replace(features=it), far).mean(), fullgraph=True)
    (found,) = torch.autograd.grad(step(near.features), near.features)
    (right,) = torch.autograd.grad(losses(near, far).mean(), near.features)
    torch.testing.assert_close(found, right)


def assert_close(found: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    rtol, atol = TOLERANCES[dtype]
    torch.testing.assert_close(found.double().cpu(), right, rtol=rtol, atol=atol)
