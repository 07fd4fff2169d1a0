"""The Triton kernels between protected pages, on random shapes, interpreted."""

from __future__ import annotations

from typing import Any

import helpers_interpreter
import pytest
import torch
from helpers_bags import NEAR, VALUE_NEAR, make, relative_error, value_and_grad
from hypothesis import given
from hypothesis import strategies as st

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from helpers_guarded_tensors import ENDS, GuardedMemory, random_cases, trouble

from patchmill.kernels.bags import gpu, reference

LAYOUTS: dict[str, Any] = {
    "plain": lambda views, bags, d: make(views, bags, d),
    "bags first": lambda views, bags, d: make(bags, views, d).transpose(0, 1),
    "part of a wider one": lambda views, bags, d: make(views, bags + 1, d + 5)[:, 1:, 2 : 2 + d],
}
# Bags of many rows are split.
numbers_of_views = st.one_of(st.integers(1, 20), st.sampled_from([33, 67]))
widths = st.one_of(st.integers(1, 40), st.sampled_from([64, 1025]))


@random_cases(6)
@given(numbers_of_views, st.integers(1, 3), widths, st.sampled_from(sorted(LAYOUTS)), st.booleans())
def losses_and_gradients(views: int, bags: int, d: int, layout: str, save: bool):
    z = LAYOUTS[layout](views, bags, d)
    truth, true_grad = value_and_grad(reference.bag_loss, z.double())
    for at_end in ENDS:
        with GuardedMemory(at_end) as memory:
            there, scale = memory.given(z, torch.tensor(2.0))
            saved = torch.empty(bags if save else 0, 2, d)
            loss = gpu.bag_loss(there, saved)
            grad = gpu.bag_loss_backward(scale, there, saved)
        assert relative_error(loss.double(), truth) <= VALUE_NEAR
        bound = NEAR[z.dtype] * true_grad.norm() + 1e-6
        assert (grad.double() - true_grad).norm() <= bound


@pytest.mark.parametrize("check", [losses_and_gradients])
def test_no_access_is_out_of_bounds_and_results_are_fully_written(check: Any):
    problem = trouble(check)
    assert problem is None, problem
