"""Streams of random numbers of any length, for operations on finished views and for mixing.

A stream belongs to (seed, epoch, sample id, view, operation, call): Philox at that counter, as in
`draw`, gives the key with which the stream's numbers are drawn. Operations are numbered from EXTRA
on, by their position in the group's `extra`; `draw` uses the numbers below.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit_ieee
from patchmill.loaders.plan import philox

EXTRA = 64  # number of a group's first operation; a group has at most 64
MIX = 128
MOST_CALLS = 256  # of an operation for one view

_TOGETHER = 64  # blocks of four numbers, computed together


@jit_ieee
def stream_keys(
    seed: np.uint64,
    epoch: int,
    ids: np.ndarray,
    views: np.ndarray,
    operation: int,
    call: int,
    keys: np.ndarray,
) -> None:
    """Write the keys [N, 2] of the streams of N views, given by sample id and view."""
    seed_low, seed_high = philox.halves(seed)
    for i in range(ids.size):
        id_low, id_high = philox.halves(ids[i])
        counter = np.uint64(views[i] << 16 | operation << 8 | call)
        keys[i, 0], keys[i, 1], _, _ = philox.block(
            id_low, id_high, np.uint64(epoch), counter, seed_low, seed_high
        )


@jit_ieee
def fill(keys: np.ndarray, numbers: np.ndarray) -> None:
    """Write the first numbers [N, count] of N streams: float32, multiples of 2**-24 in [0, 1)."""
    unit, low, count = np.float32(2.0**-24), np.uint64(8), numbers.shape[1]
    words = np.empty((4, _TOGETHER), np.uint64)
    for i in range(keys.shape[0]):
        for first in range(0, count, 4 * _TOGETHER):
            _blocks(keys[i, 0], keys[i, 1], first // 4, words)
            for j in range(min(_TOGETHER, (count - first) // 4)):
                for k in range(4):
                    word = words[k, j] >> low
                    numbers[i, first + 4 * j + k] = np.float32(np.int32(word)) * unit
        for rest in range(count % 4):
            at = count - count % 4 + rest
            word = words[rest, at // 4 % _TOGETHER] >> low
            numbers[i, at] = np.float32(np.int32(word)) * unit


@jit_ieee
def _blocks(k0: np.uint64, k1: np.uint64, first: int, words: np.ndarray) -> None:
    """Vectorised `philox.block` at the counters (first, 0, 0, 0), (first + 1, 0, 0, 0) ..."""
    for j in range(_TOGETHER):
        words[0, j] = first + j
        words[1, j] = words[2, j] = words[3, j] = 0
    for _ in range(10):
        for j in range(_TOGETHER):
            p0, p2 = philox.MULTIPLY_0 * words[0, j], philox.MULTIPLY_2 * words[2, j]
            c1, c3 = words[1, j], words[3, j]
            words[0, j], words[1, j] = (p2 >> philox.WORD) ^ c1 ^ k0, p2 & philox.LOW
            words[2, j], words[3, j] = (p0 >> philox.WORD) ^ c3 ^ k1, p0 & philox.LOW
        k0, k1 = (k0 + philox.WEYL_0) & philox.LOW, (k1 + philox.WEYL_1) & philox.LOW
