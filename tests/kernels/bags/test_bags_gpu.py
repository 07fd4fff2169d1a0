"""Bags and coding rates on a GPU: accuracy at full size, determinism, memory."""

from __future__ import annotations

import os

import pytest
import torch
from helpers_bags import DTYPES, NEAR, VALUE_NEAR, make, relative_error, units, value_and_grad

from patchmill.kernels import bags
from patchmill.kernels.bags import gpu, operators, reference
from patchmill.kernels.common.dispatch import multiprocessors

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted"),
]

SHAPES = [
    (2, 1, 1), (2, 1024, 128), (8, 64, 1000), (20, 100, 1024), (200, 100, 1024), (37, 3, 4096),
    (20, 2000, 129), (3, 5, 16384), (3, 5, 16385),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_bag_loss_against_reference(shape: tuple[int, ...], dtype: torch.dtype):
    z = make(*shape, dtype=dtype)
    found, truth = (
        value_and_grad(bags.bag_loss, z.cuda()),
        value_and_grad(reference.bag_loss, z.double()),
    )
    assert relative_error(found[0], truth[0]) <= 2 * VALUE_NEAR
    assert (found[1] - truth[1]).norm() <= 2 * NEAR[dtype] * truth[1].norm() + 1e-6


@pytest.mark.parametrize("views", [3, 50])
def test_recomputed_and_saved_bags(views: int):
    z = make(views, 7, 300).cuda()
    for save in (True, False):
        loss, saved = operators.bag_loss(z, save)
        assert len(saved) == (7 if save and views > operators.RECOMPUTE_VIEWS else 0)
        grad = operators.bag_loss_backward(torch.ones((), device="cuda"), z, saved)
        truth, true_grad = value_and_grad(reference.bag_loss, z.double())
        assert relative_error(loss.cpu().double(), truth) <= VALUE_NEAR
        assert relative_error(2 * grad.cpu().double(), true_grad) <= 2 * NEAR[torch.float32]


@pytest.mark.parametrize("shape", [(2, 50, 64), (40, 5, 64)])
def test_any_strides(shape: tuple[int, ...]):
    views, count, d = shape
    of_bags = make(count, views, d).cuda().transpose(0, 1)
    inside = make(views, count + 1, d + 5).cuda()[:, 1:, 3 : 3 + d]
    on_its_side = make(views, d, count).cuda().transpose(1, 2)
    the_same = make(1, count, d).cuda().expand(shape)
    for z in (of_bags, inside, on_its_side, the_same):
        for found, expected in zip(
            value_and_grad(bags.bag_loss, z),
            value_and_grad(bags.bag_loss, z.contiguous()),
            strict=True,
        ):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("views", [3, 200])
def test_nan_and_inf_stay_in_their_bag(views: int, bad: float):
    z = make(views, 3, 200).cuda()
    _, right = value_and_grad(bags.bag_loss, z)
    z[1, 1, 7] = bad
    loss, grad = value_and_grad(bags.bag_loss, z)
    assert loss.isnan()
    assert grad[:, 1].isnan().all()
    assert torch.equal(grad[:, ::2], right[:, ::2])


def test_rows_and_means_of_zeros():
    for views in (3, 40):
        z = make(views, 3, 20)
        z[1, 0], z[:, 1], z[1:, 2] = 0, 0, 0
        found, truth = (
            value_and_grad(bags.bag_loss, z.cuda()),
            value_and_grad(reference.bag_loss, z.double()),
        )
        assert relative_error(found[0], truth[0]) <= VALUE_NEAR
        assert relative_error(found[1], truth[1]) <= 2 * NEAR[torch.float32]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20, 100, 1024), (2, 1024, 128), (2, 512, 512), (3, 1, 9)])
def test_coding_rate_against_reference(shape: tuple[int, ...], dtype: torch.dtype):
    z = units(*shape, dtype=dtype)
    before = torch.get_float32_matmul_precision()
    truth = value_and_grad(bags.coding_rate, z.double())
    try:
        for allowed in ("highest", "high"):
            torch.set_float32_matmul_precision(allowed)
            with torch.autocast("cuda", dtype=torch.float16):
                found = value_and_grad(bags.coding_rate, z.cuda())
            assert relative_error(found[0], truth[0]) <= 2e-6
            assert relative_error(found[1], truth[1]) <= 5e-6 + 2 * NEAR[dtype]
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("images", "d"), [(1, 1), (5, 8), (8, 5), (150, 200), (700, 600)])
def test_nan_and_inf_stay_in_their_view(images: int, d: int, bad: float):
    z = units(3, images, d).cuda()
    z[1, images // 2, d // 2] = bad
    found, grad = value_and_grad(bags.coding_rate, z)
    assert found[1].isnan() and grad[1].isnan().all()
    assert found[::2].isfinite().all() and grad[::2].isfinite().all()


@pytest.mark.parametrize("function", [bags.bag_loss, bags.coding_rate])
@pytest.mark.parametrize("shape", [(2, 256, 128), (100, 50, 512)])
def test_deterministic(function, shape: tuple[int, ...]):
    z = units(*shape, dtype=torch.bfloat16).cuda()
    first = value_and_grad(function, z)
    for _ in range(10):
        again = value_and_grad(function, z)
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


@pytest.mark.parametrize("views", [2, 200])
def test_memory_of_a_step(views: int):
    """Extra memory besides z and its gradient: two vectors per bag and program."""
    count, d = 25_600 // views, 1024
    z = units(views, count, d, dtype=torch.bfloat16).cuda().requires_grad_()
    bags.bag_loss(z).backward()  # compiles
    z.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    bags.bag_loss(z).backward()
    programs = max(count, gpu.PROGRAMS_PER_SM * multiprocessors(z.device, 0))
    vectors = (programs + count) * 8 * d if views > operators.RECOMPUTE_VIEWS else 0
    numbers = z.numel() * z.element_size()
    assert torch.cuda.max_memory_allocated() - before <= numbers + vectors + (1 << 20)


def test_more_than_2_31_elements():
    """The last row is over 2^31 elements away from the first."""
    if torch.cuda.get_device_properties(0).total_memory < 24 << 30:
        pytest.skip("needs a GPU with 24 GB")
    flat = torch.zeros((1 << 31) + 4096, dtype=torch.bfloat16, device="cuda")
    z = flat.as_strided((3, 2, 128), ((1 << 30), 2048, 1))
    z.copy_(make(3, 2, 128, dtype=torch.bfloat16))
    for found, expected in zip(
        value_and_grad(bags.bag_loss, z), value_and_grad(bags.bag_loss, z.contiguous()), strict=True
    ):
        torch.testing.assert_close(found, expected)
