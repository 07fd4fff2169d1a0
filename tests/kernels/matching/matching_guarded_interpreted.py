"""The Triton kernels between protected pages, on random shapes, interpreted."""

from __future__ import annotations

from typing import Any

import helpers_interpreter
import pytest
import torch
from helpers_matching import Case, assert_matches, by_reference, loss_and_gradient
from hypothesis import given
from hypothesis import strategies as st

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from helpers_guarded_tensors import ENDS, GuardedMemory, random_cases, trouble

from patchmill.kernels.matching import gpu

# More than 64 tokens make more than one block.
tokens = st.one_of(st.integers(1, 12), st.sampled_from([65]))


@st.composite
def cases(draw: Any) -> Case:
    both = draw(tokens), draw(tokens)
    maps = draw(st.integers(1, 2)), 1
    keep = draw(st.integers(1, min(both)))
    return Case(maps, both, draw(st.integers(1, 40)), draw(st.integers(1, 3)), keep)


@random_cases(3)
@given(cases())
def matches_losses_and_gradients(case: Case):
    inputs = case.make(torch.float32)
    right, by_student = loss_and_gradient(by_reference, case, inputs)
    for at_end in ENDS:
        with GuardedMemory(at_end) as memory:
            there = memory.given(*inputs)
            (weight,) = memory.given(case.weights() * (-0.5 / case.keep))
            matches = gpu.best_matches(*there)
            losses, saved = gpu.correspond(*there, case.keep)
            gradient = gpu.correspond_backward(weight, *there, saved)
        assert_matches(matches, inputs)
        torch.testing.assert_close(losses, right, rtol=1e-5, atol=1e-5)
        assert (gradient - by_student).norm() <= 1e-4 * by_student.norm() + 1e-5


@pytest.mark.parametrize("check", [matches_losses_and_gradients])
def test_no_access_is_out_of_bounds_and_results_are_fully_written(check: Any):
    problem = trouble(check)
    assert problem is None, problem
