"""Streams of random numbers of any length, for operations on finished views and for mixing.

A stream belongs to (seed, epoch, sample id, view, operation, call): Philox at that counter, as in
`draw`, gives the key under which the stream's own numbers are drawn. Operations are numbered from
EXTRA on, by their place in the group's `extra`; `draw` uses the numbers below.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit_ieee
from patchmill.loaders.plan import philox

EXTRA = 64  # number of a group's first operation; they are 64 at most
MIX = 128
MOST_CALLS = 256  # of an operation for one view


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
    """Write the keys [N, 2] of the streams of N views, each of the sample with its id."""
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
    zero, unit, low = np.uint64(0), np.float32(2.0**-24), np.uint64(8)
    count = numbers.shape[1]
    for i in range(keys.shape[0]):
        for block in range((count + 3) // 4):
            words = philox.block(np.uint64(block), zero, zero, zero, keys[i, 0], keys[i, 1])
            first = 4 * block
            for j in range(min(4, count - first)):
                numbers[i, first + j] = np.float32(words[j] >> low) * unit
