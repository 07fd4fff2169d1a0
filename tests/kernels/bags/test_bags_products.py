"""Products that keep float32's digits where a program allows fewer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from helpers_bags import make, off, pulled, units

from patchmill.kernels import bags
from patchmill.kernels.bags import products


@pytest.fixture
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_halves_are_exact_and_of_few_bits():
    a = make(50, 1, 40)
    high, low = products.halves(a)
    assert torch.equal(high + low, a)
    assert torch.equal(cut(high), high)
    assert (low.abs() <= a.abs() * 2**-11).all()


def test_halves_of_what_is_not_finite():
    for wrong in (torch.nan, torch.inf, -torch.inf):
        high, low = products.halves(torch.tensor([wrong]))
        assert (high + low).isnan().all()


def test_split_products_have_float32s_digits():
    """With every product of a GPU's three made of numbers cut to TF32, as it would cut them."""
    a, b = make(2, 30, 100), make(2, 100, 20, seed=1)
    pairs = zip(products.halves(a), products.halves(b), strict=True)
    (a_high, b_high), (a_low, b_low) = ((cut(x), cut(y)) for x, y in pairs)
    split = a_low @ b_high + a_high @ b_low + a_high @ b_high
    exact = a.double() @ b.double()
    assert off(split, exact) <= 2 * off(a @ b, exact)
    assert off(cut(a) @ cut(b), exact) > 100 * off(split, exact)


def cut(a: torch.Tensor) -> torch.Tensor:
    return (a.view(torch.int32) & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("allowed", ["highest", "high", "medium"])
@pytest.mark.parametrize("room", [True, False])
def test_products_on_the_cpu(allowed: str, room: bool, precision: None):
    torch.set_float32_matmul_precision(allowed)
    a, b = make(3, 30, 100), make(3, 100, 20, seed=1)
    out = torch.empty(3, 30, 20) if room else None
    made = products.product(a, b, out=out)
    assert made.dtype == torch.float32
    assert out is None or made.data_ptr() == out.data_ptr()
    assert off(made, a.double() @ b.double()) <= 1e-6


@pytest.mark.parametrize("allowed", ["high", "medium"])
def test_rates_do_not_change_with_what_is_allowed(allowed: str, precision: None):
    z = units(3, 20, 30)
    expected = pulled(bags.coding_rate, z)
    torch.set_float32_matmul_precision(allowed)
    found = pulled(bags.coding_rate, z)
    assert off(found[0], expected[0]) <= 1e-6
    assert off(found[1], expected[1]) <= 1e-6


@pytest.mark.parametrize(
    ("told", "rounded"),
    [("none", False), ("ieee", False), ("tf32", True), ("bf16", True)],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_may_be_rounded(
    device: str, told: str, rounded: bool, monkeypatch: pytest.MonkeyPatch
):
    backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    monkeypatch.setattr(backend, "matmul", SimpleNamespace(fp32_precision=told))
    assert products._is_rounded(torch.device(device)) is rounded


@pytest.mark.gpu
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted")
@pytest.mark.parametrize("allowed", ["highest", "high"])
def test_products_on_a_gpu(allowed: str, precision: None):
    torch.set_float32_matmul_precision(allowed)
    a, b = make(3, 128, 512).cuda(), make(3, 512, 256, seed=1).cuda()
    exact = a.double() @ b.double()
    assert off(products.product(a, b), exact) <= 1e-6
    if allowed == "high" and torch.cuda.get_device_capability() >= (8, 0):
        assert off(torch.bmm(a, b), exact) > 1e-5  # else nothing was rounded, and nothing is tested
