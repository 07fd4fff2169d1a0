"""Products keep float32 precision even if the program allows less."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from helpers_bags import make, relative_error, units, value_and_grad

from patchmill.kernels import bags
from patchmill.kernels.bags import float32_matmul


@pytest.fixture
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_split_is_exact_and_tf32():
    a = make(50, 1, 40)
    high, low = float32_matmul.split_tf32(a)
    assert torch.equal(high + low, a)
    assert torch.equal(truncate_tf32(high), high)
    assert (low.abs() <= a.abs() * 2**-11).all()


def test_split_of_nan_and_inf():
    for bad in (torch.nan, torch.inf, -torch.inf):
        high, low = float32_matmul.split_tf32(torch.tensor([bad]))
        assert (high + low).isnan().all()


def test_split_products_have_float32s_digits():
    """Three products of operands truncated to TF32, as on a GPU."""
    a, b = make(2, 30, 100), make(2, 100, 20, seed=1)
    pairs = zip(float32_matmul.split_tf32(a), float32_matmul.split_tf32(b), strict=True)
    (a_high, b_high), (a_low, b_low) = ((truncate_tf32(x), truncate_tf32(y)) for x, y in pairs)
    split = a_low @ b_high + a_high @ b_low + a_high @ b_high
    exact = a.double() @ b.double()
    assert relative_error(split, exact) <= 2 * relative_error(a @ b, exact)
    assert relative_error(truncate_tf32(a) @ truncate_tf32(b), exact) > 100 * relative_error(
        split, exact
    )


def truncate_tf32(a: torch.Tensor) -> torch.Tensor:
    return (a.view(torch.int32) & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("allowed", ["highest", "high", "medium"])
@pytest.mark.parametrize("with_out", [True, False])
def test_products_on_the_cpu(allowed: str, with_out: bool, precision: None):
    torch.set_float32_matmul_precision(allowed)
    a, b = make(3, 30, 100), make(3, 100, 20, seed=1)
    out = torch.empty(3, 30, 20) if with_out else None
    result = float32_matmul.bmm_float32(a, b, out=out)
    assert result.dtype == torch.float32
    assert out is None or result.data_ptr() == out.data_ptr()
    assert relative_error(result, a.double() @ b.double()) <= 1e-6


@pytest.mark.parametrize("allowed", ["high", "medium"])
def test_rates_where_rounding_is_allowed(allowed: str, precision: None):
    z = units(3, 20, 30)
    expected = value_and_grad(bags.coding_rate, z)
    torch.set_float32_matmul_precision(allowed)
    found = value_and_grad(bags.coding_rate, z)
    assert relative_error(found[0], expected[0]) <= 1e-6
    assert relative_error(found[1], expected[1]) <= 1e-6


@pytest.mark.parametrize(
    ("setting", "rounded"),
    [("none", False), ("ieee", False), ("tf32", True), ("bf16", True)],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_detects_allowed_rounding(
    device: str, setting: str, rounded: bool, monkeypatch: pytest.MonkeyPatch
):
    backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    monkeypatch.setattr(backend, "matmul", SimpleNamespace(fp32_precision=setting))
    assert float32_matmul._may_round(torch.device(device)) is rounded


@pytest.mark.gpu
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted")
@pytest.mark.parametrize("allowed", ["highest", "high"])
def test_products_on_a_gpu(allowed: str, precision: None):
    torch.set_float32_matmul_precision(allowed)
    a, b = make(3, 128, 512).cuda(), make(3, 512, 256, seed=1).cuda()
    exact = a.double() @ b.double()
    assert relative_error(float32_matmul.bmm_float32(a, b), exact) <= 1e-6
    if allowed == "high" and torch.cuda.get_device_capability() >= (8, 0):
        assert (
            relative_error(torch.bmm(a, b), exact) > 1e-5
        )  # else nothing was rounded, and the test is void
