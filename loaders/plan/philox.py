"""Philox4x32-10: counter-based random numbers, a pure function of (key, counter).

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Words are
32 bits wide but held as uint64, the type that Numba computes with.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit_ieee

Words = tuple[np.uint64, np.uint64, np.uint64, np.uint64]

WORD, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
MULTIPLY_0, MULTIPLY_2 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ULP = 2.0**-32


@jit_ieee
def block(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> Words:
    """Four random words from a counter of four words and a key of two, all uint64 below 2**32."""
    for _ in range(10):
        p0, p2 = MULTIPLY_0 * c0, MULTIPLY_2 * c2
        c0, c1, c2, c3 = (p2 >> WORD) ^ c1 ^ k0, p2 & LOW, (p0 >> WORD) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + WEYL_0) & LOW, (k1 + WEYL_1) & LOW
    return c0, c1, c2, c3


@jit_ieee
def halves(value: int) -> tuple[np.uint64, np.uint64]:
    """The low and the high word of a 64-bit number."""
    bits = np.uint64(value)
    return bits & LOW, bits >> WORD


@jit_ieee
def uniform(word: np.uint64, low: float, high: float) -> float:
    """A double in [low, high)."""
    return low + np.float64(word) * _ULP * (high - low)


@jit_ieee
def below(word: np.uint64, n: int) -> np.int64:
    """An integer in 0..n-1, n up to 2**32, by multiply and shift: bias is at most n / 2**32."""
    return np.int64((word * np.uint64(n)) >> WORD)
