"""The bag loss on the CPU."""

from __future__ import annotations

import pytest
import torch
from helpers_bags import (
    DTYPES,
    HALVES,
    NEAR,
    VALUE_NEAR,
    assert_as_accurate,
    make,
    relative_error,
    value_and_grad,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels import bags
from patchmill.kernels.bags import cpu, reference

SHAPES = [
    (1, 1, 1),
    (2, 64, 128),
    (3, 5, 7),
    (20, 10, 512),
    (200, 3, 65),
    (8, 2, 4096),
    (5, 300, 1),
]


def plain(z: torch.Tensor) -> torch.Tensor:
    """Eager PyTorch, in float32 as under autocast."""
    z = z.float()
    return -torch.nn.functional.cosine_similarity(z, z.mean(0), dim=-1).mean()


# ------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient(shape: tuple[int, ...], dtype: torch.dtype):
    z = make(*shape, dtype=dtype)
    if 1 in (shape[0], shape[2]):  # the gradient is pure rounding error
        found, truth = (
            value_and_grad(bags.bag_loss, z),
            value_and_grad(reference.bag_loss, z.double()),
        )
        assert relative_error(found[0], truth[0]) <= VALUE_NEAR
        assert (found[1] - truth[1]).norm() <= 1e-5
    else:
        assert_as_accurate(bags.bag_loss, reference.bag_loss, plain, z)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 12), st.integers(1, 9), st.integers(2, 70), st.sampled_from(DTYPES),
    st.integers(0, 1000),
)  # fmt: skip
def test_any_shape(views: int, count: int, d: int, dtype: torch.dtype, seed: int):
    z = make(views, count, d, dtype=dtype, seed=seed)
    found, truth = value_and_grad(bags.bag_loss, z), value_and_grad(reference.bag_loss, z.double())
    assert (found[0] - truth[0]).abs() <= 4 * VALUE_NEAR
    # Relative to the size of the terms, which may cancel.
    strength = (1 / z.double().norm(dim=-1)).norm() * 4 / (views * count)
    assert (found[1] - truth[1]).norm() <= NEAR[dtype] * strength


@pytest.mark.parametrize("dtype", HALVES)
def test_16_bit_dtypes_in_many_parts(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    z = make(6, 11, 40, dtype=dtype)
    at_once = value_and_grad(bags.bag_loss, z)
    monkeypatch.setattr(cpu, "CONVERTED", 3 * 6 * 40)
    for found, expected in zip(value_and_grad(bags.bag_loss, z), at_once, strict=True):
        assert torch.equal(found, expected)


def test_dtypes_of_results_and_gradients():
    for dtype in DTYPES:
        z = make(2, 3, 4, dtype=dtype).requires_grad_()
        loss = bags.bag_loss(z)
        (grad,) = torch.autograd.grad(loss, z)
        assert (loss.dtype, loss.shape, grad.dtype) == (torch.float32, (), dtype)


def test_float64_runs_the_reference():
    z = make(4, 3, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(bags.bag_loss, z)


def test_no_grad():
    z = make(4, 3, 5)
    assert not bags.bag_loss(z).requires_grad
    with torch.no_grad():
        assert not bags.bag_loss(z.requires_grad_()).requires_grad


# --------------------------------------------------------------------------- layout and threads


def test_any_layout():
    of_bags = make(6, 4, 10).transpose(0, 1)
    inside = make(4, 7, 15)[:, 1:, 2:12]
    every_other = make(4, 6, 20)[..., ::2]
    on_its_side = make(4, 10, 6).transpose(1, 2)
    the_same = make(1, 6, 10).expand(4, 6, 10)
    backwards = make(4, 6, 10).flip(0)
    for z in (of_bags, inside, every_other, on_its_side, the_same, backwards):
        for found, expected in zip(
            value_and_grad(bags.bag_loss, z),
            value_and_grad(bags.bag_loss, z.contiguous()),
            strict=True,
        ):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads(dtype: torch.dtype):
    z, threads = make(20, 37, 256, dtype=dtype), torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            results.append(value_and_grad(bags.bag_loss, z))
    finally:
        torch.set_num_threads(threads)
    for loss, grad in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(grad, results[0][1])


# ------------------------------------------------------------------------------ special values


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_and_means_of_zeros(dtype: torch.dtype):
    z = make(5, 4, 12, dtype=dtype)
    z[:, 0] = 0  # a bag of zeros
    z[1, 1] = 0
    z[1:, 2] = 0
    z[1, 3], z[3, 3], z[4, 3] = -z[0, 3], -z[2, 3], 0  # a mean of zero
    found, truth = value_and_grad(bags.bag_loss, z), value_and_grad(reference.bag_loss, z.double())
    assert relative_error(found[0], truth[0]) <= VALUE_NEAR
    if dtype == torch.float16:  # overflows for a row of zeros
        keep = z.norm(dim=-1) > 0
        keep[:, 3] = False
        found, truth = (found[0], found[1][keep]), (truth[0], truth[1][keep])
    assert found[1].isfinite().all()
    assert relative_error(found[1], truth[1]) <= 2 * NEAR[dtype]


def test_rows_shorter_than_eps():
    z = make(3, 2, 6)
    z[0] *= 1e-9
    z[:, 1] *= 1e-10
    found, truth = value_and_grad(bags.bag_loss, z), value_and_grad(reference.bag_loss, z.double())
    assert relative_error(found[0], truth[0]) <= VALUE_NEAR
    assert relative_error(found[1], truth[1]) <= 2 * NEAR[torch.float32]


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e6, 1e15])
def test_lengths_of_any_size(scale: float):
    z = make(4, 3, 33) * scale
    found, truth = value_and_grad(bags.bag_loss, z), value_and_grad(reference.bag_loss, z.double())
    assert relative_error(found[0], truth[0]) <= VALUE_NEAR
    assert relative_error(found[1], truth[1]) <= 2 * NEAR[torch.float32]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("shape", [(2, 3, 16), (30, 3, 200)])
def test_nan_and_inf_stay_in_their_bag(shape: tuple[int, ...], bad: float, dtype: torch.dtype):
    z = make(*shape, dtype=dtype)
    _, right = value_and_grad(bags.bag_loss, z)
    z[1, 1, 7] = bad
    loss, grad = value_and_grad(bags.bag_loss, z)
    assert loss.isnan()
    assert grad[:, 1].isnan().all()
    assert torch.equal(grad[:, ::2], right[:, ::2])


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.zeros(3, 4), r"takes z as \[V, B, d\] without an empty dimension, not \(3, 4\)"),
        (torch.zeros(0, 3, 4), r"not \(0, 3, 4\)"),
        (torch.zeros(2, 0, 4), r"not \(2, 0, 4\)"),
        (torch.zeros(2, 3, 0), r"not \(2, 3, 0\)"),
        (torch.zeros(2, 3, 4, dtype=torch.int32), r"float64, not torch.int32: convert z"),
        (torch.zeros(2, 3, 4, dtype=torch.complex64), r"not torch.complex64"),
    ],
)
def test_bad_input_raises_one_sentence(z: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        bags.bag_loss(z)
