"""`as_type` against `array.view`, and images at an address."""

from __future__ import annotations

import numpy as np
import pytest

from patchmill.kernels.common.array_views import as_type, image_at
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


def test_bytes_beyond_a_whole_element_are_dropped():
    assert as_floats(np.zeros(7, np.uint8)).shape == (1,)


def test_a_view_of_memory_with_no_other_reference():
    viewed = as_words(np.full(8, 1, np.uint8))
    assert viewed.tolist() == [257] * 4


@jit
def sums_of_an_image(address, height, width):
    image = image_at(address, height, width)
    return image[height - 1, 0].sum(), image.shape, image.size


def test_an_image_at_an_address():
    memory = np.arange(100, dtype=np.uint8)
    memory.flags.writeable = False
    last, shape, size = sums_of_an_image(memory.ctypes.data + 4, 3, 5)
    assert (last, shape, size) == (int(memory[34:37].sum()), (3, 5, 3), 45)
