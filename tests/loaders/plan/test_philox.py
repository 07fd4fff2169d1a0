import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.loaders.plan import philox

ONES = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)

word = st.integers(0, ONES)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((ONES,) * 4, (ONES,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (PI, (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers_of_random123(counter, key, words):
    got = philox.block(*map(np.uint64, counter + key))
    assert " ".join(f"{word:08x}" for word in got) == words


@given(st.tuples(*[word] * 4), st.tuples(*[word] * 2))
def test_block_is_the_published_algorithm(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high2, low2 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high2 ^ c[1] ^ k[0], low2, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    assert list(philox.block(*map(np.uint64, counter + key))) == c


@given(st.integers(0, 2**64 - 1))
def test_halves(value):
    low, high = philox.halves(np.uint64(value))
    assert int(high) << 32 | int(low) == value


@given(word, st.floats(-10, 10), st.floats(0, 10))
def test_uniform_spans_the_range(word, low, width):
    value = philox.uniform(np.uint64(word), low, low + width)
    assert low <= value <= low + width
    assert math.isclose(value, low + width * word / 2**32, abs_tol=1e-9)


@given(word, st.integers(1, 2**32))
def test_below_is_an_exact_scaling(word, n):
    assert philox.below(np.uint64(word), n) == word * n // 2**32
