"""The Triton kernels, interpreted on CPU tensors, against the reference.

TRITON_INTERPRET=1 python -m pytest tests/kernels/bags/bags_interpreted.py
"""

from __future__ import annotations

import helpers_interpreter
import pytest
import torch
from helpers_bags import HALVES, NEAR, VALUE_NEAR, make, relative_error, value_and_grad

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from patchmill.kernels.bags import gpu, reference

# Views, bags, d; bags of the last two are split.
SHAPES = [(1, 1, 1), (2, 3, 16), (3, 2, 17), (8, 2, 100), (9, 17, 8), (37, 2, 33), (67, 1, 64)]


def loss_and_grad(z: torch.Tensor, save: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the gradient of twice the loss."""
    _, bags, d = z.shape
    saved = torch.full((bags if save else 0, 2, d), torch.nan)
    loss = gpu.bag_loss(z, saved)
    return loss.double(), gpu.bag_loss_backward(torch.tensor(2.0), z, saved).double()


def assert_right(z: torch.Tensor, save: bool) -> None:
    loss, grad = loss_and_grad(z, save)
    truth, true_grad = value_and_grad(reference.bag_loss, z.double())
    assert relative_error(loss, truth) <= VALUE_NEAR
    # The interpreter truncates bfloat16 instead of rounding it. The gradient w.r.t. the row of a
    # bag of one is pure rounding error.
    near = NEAR[z.dtype] * (2 if z.dtype == torch.bfloat16 else 1)
    assert (grad - true_grad).norm() <= near * true_grad.norm() + 1e-6


@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient(shape: tuple[int, ...], save: bool):
    assert_right(make(*shape), save)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(3, 2, 17), (37, 2, 33)])
def test_16_bit_dtypes(shape: tuple[int, ...], dtype: torch.dtype):
    assert_right(make(*shape, dtype=dtype), save=shape[0] > 8)


def test_which_bags_are_split():
    device = torch.device("cpu")
    split_sizes = [
        gpu.split_rows(views, bags, gpu.MIN_SPLIT_ROWS, device) for views, bags, _ in SHAPES
    ]
    whole = [size == views for size, (views, _, _) in zip(split_sizes, SHAPES, strict=True)]
    assert whole == [True] * 5 + [False] * 2


@pytest.mark.parametrize("d", [1024, 1500, 4096])
def test_long_rows(d: int):
    assert_right(make(5, 2, d), save=True)
    assert_right(make(5, 2, d, dtype=torch.bfloat16), save=False)


@pytest.mark.parametrize("shape", [(3, 2, 24), (34, 1, 24)])
def test_any_strides(shape: tuple[int, ...]):
    views, bags, d = shape
    of_bags = make(bags, views, d).transpose(0, 1)
    wider = make(views, bags + 1, d + 5)[:, 1:, 2 : 2 + d]
    spread_out = make(1, bags, d).expand(views, bags, d)
    for z in (of_bags, wider, spread_out):
        loss, grad = loss_and_grad(z, save=views > 8)
        same_loss, same_grad = loss_and_grad(z.contiguous(), save=views > 8)
        assert torch.equal(loss, same_loss)
        assert torch.equal(grad, same_grad)


@pytest.mark.parametrize(("views", "save"), [(3, False), (3, True), (34, True)])
def test_rows_and_means_of_zeros(views: int, save: bool):
    z = make(views, 3, 20)
    z[1, 0] = 0
    z[:, 1] = 0
    z[1:, 2] = 0
    assert_right(z, save)
    z[:, 1] = make(views, 20)
    z[0, 1] -= z[:, 1].sum(0)  # a mean of nearly zero
    loss, grad = loss_and_grad(z, save)
    assert loss.isfinite() and grad.isfinite().all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(("views", "save"), [(3, False), (3, True), (34, True)])
def test_nan_and_inf_stay_in_their_bag(views: int, bad: float, save: bool):
    z = make(views, 3, 20)
    _, right = loss_and_grad(z, save)
    z[1, 1, 7] = bad
    loss, grad = loss_and_grad(z, save)
    assert loss.isnan()
    assert grad[:, 1].isnan().all()
    assert torch.equal(grad[:, ::2], right[:, ::2])
