"""The GPU's bags against the reference, the kernels run by Triton's interpreter on CPU tensors.

TRITON_INTERPRET=1 python -m pytest tests/kernels/bags/bags_interpreted.py
"""

from __future__ import annotations

import helpers_interpreter
import pytest
import torch
from helpers_bags import HALVES, NEAR, VALUE_NEAR, make, off, pulled

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from patchmill.kernels.bags import gpu, reference

# Views, bags, numbers; several programs share a bag of the last two.
SHAPES = [(1, 1, 1), (2, 3, 16), (3, 2, 17), (8, 2, 100), (9, 17, 8), (37, 2, 33), (67, 1, 64)]


def found_in(z: torch.Tensor, keep: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and the gradient of its double."""
    _, bags, d = z.shape
    kept = torch.full((bags if keep else 0, 2, d), torch.nan)
    loss = gpu.forward(z, kept)
    return loss.double(), gpu.backward(torch.tensor(2.0), z, kept).double()


def assert_right(z: torch.Tensor, keep: bool) -> None:
    loss, slope = found_in(z, keep)
    truth, true_slope = pulled(reference.bag_loss, z.double())
    assert off(loss, truth) <= VALUE_NEAR
    # The interpreter cuts bfloat16 off rather than to round it. Nothing but rounding pulls at the
    # row of a bag of one.
    near = NEAR[z.dtype] * (2 if z.dtype == torch.bfloat16 else 1)
    assert (slope - true_slope).norm() <= near * true_slope.norm() + 1e-6


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient(shape: tuple[int, ...], keep: bool):
    assert_right(make(*shape), keep)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(3, 2, 17), (37, 2, 33)])
def test_halves(shape: tuple[int, ...], dtype: torch.dtype):
    assert_right(make(*shape, dtype=dtype), keep=shape[0] > 8)


def test_some_bags_are_shared_and_some_are_not():
    device = torch.device("cpu")
    spans = [gpu.span_of(views, bags, gpu.LEAST_SPAN, device) for views, bags, _ in SHAPES]
    whole = [span == views for span, (views, _, _) in zip(spans, SHAPES, strict=True)]
    assert whole == [True] * 5 + [False] * 2


@pytest.mark.parametrize("d", [1024, 1500, 4096])
def test_long_rows(d: int):
    assert_right(make(5, 2, d), keep=True)
    assert_right(make(5, 2, d, dtype=torch.bfloat16), keep=False)


@pytest.mark.parametrize("shape", [(3, 2, 24), (34, 1, 24)])
def test_any_steps_between_rows(shape: tuple[int, ...]):
    views, bags, d = shape
    of_bags = make(bags, views, d).transpose(0, 1)
    wider = make(views, bags + 1, d + 5)[:, 1:, 2 : 2 + d]
    spread_out = make(1, bags, d).expand(views, bags, d)
    for z in (of_bags, wider, spread_out):
        loss, slope = found_in(z, keep=views > 8)
        same_loss, same_slope = found_in(z.contiguous(), keep=views > 8)
        assert torch.equal(loss, same_loss)
        assert torch.equal(slope, same_slope)


@pytest.mark.parametrize(("views", "keep"), [(3, False), (3, True), (34, True)])
def test_rows_and_means_of_zeros(views: int, keep: bool):
    z = make(views, 3, 20)
    z[1, 0] = 0
    z[:, 1] = 0
    z[1:, 2] = 0
    assert_right(z, keep)
    z[:, 1] = make(views, 20)
    z[0, 1] -= z[:, 1].sum(0)  # a mean of nearly nothing
    loss, slope = found_in(z, keep)
    assert loss.isfinite() and slope.isfinite().all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize(("views", "keep"), [(3, False), (3, True), (34, True)])
def test_what_is_not_finite_stays_in_its_bag(views: int, wrong: float, keep: bool):
    z = make(views, 3, 20)
    _, right = found_in(z, keep)
    z[1, 1, 7] = wrong
    loss, slope = found_in(z, keep)
    assert loss.isnan()
    assert slope[:, 1].isnan().all()
    assert torch.equal(slope[:, ::2], right[:, ::2])
