"""Coding rates on the CPU."""

from __future__ import annotations

import pytest
import torch
from helpers_bags import (
    DTYPES,
    HALVES,
    NEAR,
    assert_as_accurate,
    make,
    relative_error,
    units,
    value_and_grad,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels import bags
from patchmill.kernels.bags import gram, reference

SHAPES = [(1, 1, 1), (3, 1, 9), (3, 9, 1), (20, 10, 64), (2, 64, 10), (2, 33, 33), (3, 100, 300)]


def truth(z: torch.Tensor) -> torch.Tensor:
    return reference.coding_rate(z, 0.2)


def plain(z: torch.Tensor) -> torch.Tensor:
    """Autograd through the smaller matrix, in float32."""
    return by_smaller_gram(z.float())


def by_smaller_gram(z: torch.Tensor) -> torch.Tensor:
    images, d = z.shape[-2:]
    rows = z if images <= d else z.mT
    gram = rows @ rows.mT * (d / (images * 0.2))
    return reference.logdet(torch.eye(gram.shape[-1], dtype=z.dtype) + gram) / 2


# ------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient(shape: tuple[int, ...], dtype: torch.dtype):
    assert_as_accurate(bags.coding_rate, truth, plain, units(*shape, dtype=dtype))
    assert_as_accurate(bags.coding_rate, truth, plain, make(*shape, dtype=dtype))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.floats(0.05, 2),
    st.sampled_from(DTYPES), st.integers(0, 1000),
)  # fmt: skip
def test_any_shape(views: int, images: int, d: int, eps: float, dtype: torch.dtype, seed: int):
    z = units(views, images, d, dtype=dtype, seed=seed)
    found = value_and_grad(lambda z: bags.coding_rate(z, eps), z)
    expected = value_and_grad(lambda z: reference.coding_rate(z, eps), z.double())
    assert relative_error(found[0], expected[0]) <= 1e-5
    assert relative_error(found[1], expected[1]) <= 1e-5 + 2 * NEAR[dtype]


@pytest.mark.parametrize(("images", "d"), [(30, 80), (80, 30), (40, 40)])
def test_closed_form_gradient(images: int, d: int):
    """c (I + c Z Z^T)^-1 Z, by the operator in float32 and by the formula in float64."""
    z, c = units(images, d).double(), d / (images * 0.2)
    _, grad = value_and_grad(truth, z)
    formula = 2 * c * torch.linalg.solve(torch.eye(images) + c * z @ z.T, z)
    assert relative_error(formula, grad) <= 1e-12
    _, found = value_and_grad(bags.coding_rate, z.float())
    assert relative_error(found, grad) <= 1e-5


@pytest.mark.parametrize(("images", "d"), [(100, 1024), (1024, 128), (512, 512), (256, 2048)])
def test_errors_in_the_docstring(images: int, d: int):
    at_random = units(images, d)
    nearby = units(1, d) + 0.01 * torch.randn(images, d, generator=torch.Generator().manual_seed(1))
    nearby = torch.nn.functional.normalize(nearby, dim=-1)
    same = units(1, d).expand(images, d)
    for z, value, grad in ((at_random, 1e-7, 2e-6), (nearby, 3e-5, 2e-4), (same, 5e-5, 2e-2)):
        found, expected = (
            value_and_grad(bags.coding_rate, z),
            value_and_grad(by_smaller_gram, z.double()),
        )
        assert relative_error(found[0], expected[0]) <= 2 * value
        assert relative_error(found[1], expected[1]) <= 2 * grad


def test_one_matrix_gives_a_scalar():
    z = units(6, 10).requires_grad_()
    one = bags.coding_rate(z)
    assert one.shape == ()
    assert torch.equal(one, bags.coding_rate(z[None])[0])
    (grad,) = torch.autograd.grad(one, z)
    assert grad.shape == z.shape


def test_dtypes_of_results_and_gradients():
    for dtype in DTYPES:
        z = units(2, 3, 4, dtype=dtype).requires_grad_()
        rates = bags.coding_rate(z)
        (grad,) = torch.autograd.grad(rates.sum(), z)
        assert (rates.dtype, rates.shape, grad.dtype) == (torch.float32, (2,), dtype)


@pytest.mark.parametrize(("images", "d"), [(5, 8), (8, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_parts(images: int, d: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    z = units(7, images, d, dtype=dtype)
    at_once = value_and_grad(bags.coding_rate, z)
    monkeypatch.setattr(gram, "CONVERTED", 2 * images * d)
    for found, expected in zip(value_and_grad(bags.coding_rate, z), at_once, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_any_layout():
    of_images = units(6, 4, 10).transpose(0, 1)
    every_other = units(4, 6, 20)[..., ::2]
    on_its_side = units(4, 10, 6).transpose(1, 2)
    the_same = units(1, 6, 10).expand(4, 6, 10)
    for z in (of_images, every_other, on_its_side, the_same):
        for found, expected in zip(
            value_and_grad(bags.coding_rate, z),
            value_and_grad(bags.coding_rate, z.contiguous()),
            strict=True,
        ):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------ special values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("images", "d"), [(1, 1), (5, 8), (8, 5), (150, 200)])
def test_nan_and_inf_stay_in_their_view(images: int, d: int, bad: float, dtype: torch.dtype):
    z = units(3, images, d, dtype=dtype)
    rates, grad = value_and_grad(bags.coding_rate, z)
    z[1, images // 2, d // 2] = bad
    found, found_grad = value_and_grad(bags.coding_rate, z)
    assert found[1].isnan() and found_grad[1].isnan().all()
    assert torch.equal(found[::2], rates[::2])
    assert torch.equal(found_grad[::2], grad[::2])


def test_failed_factorisation_gives_nan():
    z = (1e6 * units(1, 200)).expand(2, 300, 200).clone()  # one direction, far too long
    z[1] = units(300, 200)
    found, grad = value_and_grad(bags.coding_rate, z)
    assert found[0].isnan() and grad[0].isnan().all()
    assert found[1].isfinite() and grad[1].isfinite().all()


def test_zeros_have_no_rate_and_no_gradient():
    found, grad = value_and_grad(bags.coding_rate, torch.zeros(2, 3, 4))
    assert not found.any() and not grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_autocast_has_no_effect(dtype: torch.dtype):
    z = units(3, 20, 30, dtype=dtype)
    expected = value_and_grad(bags.coding_rate, z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value_and_grad(bags.coding_rate, z)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("z", "eps", "message"),
    [
        (torch.zeros(3), 0.2, r"takes z as \[B, d\] or \[V, B, d\].*, not \(3,\)"),
        (torch.zeros(1, 2, 3, 4), 0.2, r"not \(1, 2, 3, 4\)"),
        (torch.zeros(2, 0, 4), 0.2, r"not \(2, 0, 4\)"),
        (torch.zeros(3, 4, dtype=torch.int64), 0.2, r"not torch.int64: convert z"),
        (torch.zeros(3, 4), 0.0, "eps must be above 0 and finite, not 0.0"),
        (torch.zeros(3, 4), -1.0, "not -1.0"),
        (torch.zeros(3, 4), float("nan"), "not nan"),
        (torch.zeros(3, 4), float("inf"), "not inf"),
    ],
)
def test_bad_input_raises_one_sentence(z: torch.Tensor, eps: float, message: str):
    with pytest.raises(ValueError, match=message):
        bags.coding_rate(z, eps)
