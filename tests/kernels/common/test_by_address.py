"""Calls by address: the callee's result and exceptions; other argument types are rejected."""

from __future__ import annotations

import numpy as np
import pytest
from numba.core.errors import TypingError

from patchmill.kernels.common.by_address import Callee, call
from patchmill.kernels.common.jit import jit


@jit
def scaled_sum(values, factor):
    if factor == 0:
        raise ValueError("no factor")
    return values.sum() * factor


@jit
def double(values, factor):
    values *= 2
    return factor


@jit
def through(callee, values, factor):
    return call(callee, (values, factor)) + 1


VALUES = np.arange(5, dtype=np.float32)


def test_result_side_effects_and_two_callees_of_one_caller() -> None:
    assert through(Callee(scaled_sum, VALUES, 2.0), VALUES, 2.0) == 21
    values = VALUES.copy()
    assert through(Callee(double, VALUES, 2.0), values, 3.5) == 4.5
    assert values.tolist() == [0, 2, 4, 6, 8]


def test_an_exception_of_the_callee_is_the_callers() -> None:
    callee = Callee(scaled_sum, VALUES, 2.0)
    with pytest.raises(ValueError, match="no factor"):
        through(callee, VALUES, 0.0)


@pytest.mark.parametrize("wrong", [(VALUES.astype(np.float64), 2.0), (VALUES, 2)])
def test_arguments_of_other_types_are_refused(wrong: tuple[np.ndarray, float]) -> None:
    callee = Callee(scaled_sum, VALUES, 2.0)
    with pytest.raises(TypingError, match="compiled for"):
        through(callee, *wrong)
