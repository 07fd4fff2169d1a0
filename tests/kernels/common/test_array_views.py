"""`as_type` against `array.view`."""

from __future__ import annotations

import numpy as np
import pytest

from patchmill.kernels.common.array_views import as_type
from patchmill.kernels.common.jit import jit


@jit
def as_floats(array):
    return as_type(array, np.float32)


@jit
def as_words(array):
    return as_type(array, np.int16)


@pytest.mark.parametrize("function, dtype", [(as_floats, np.float32), (as_words, np.int16)])
def test_the_same_memory_as_another_dtype(function, dtype):
    array = np.arange(24, dtype=np.uint8)
    viewed = function(array)
    np.testing.assert_array_equal(viewed, array.view(dtype))
    assert np.shares_memory(viewed, array)


def test_bytes_beyond_a_whole_element_are_left_out():
    assert as_floats(np.zeros(7, np.uint8)).shape == (1,)


def test_of_memory_that_nobody_else_holds():
    viewed = as_words(np.full(8, 1, np.uint8))
    assert viewed.tolist() == [257] * 4
