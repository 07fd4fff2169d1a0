"""Sample order: one global permutation per epoch, any slice of which is computed on the fly.

A step consumes the same slice of the epoch's order regardless of the number of ranks, so an epoch's
state is one number: how many samples have been consumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from patchmill.kernels.common.jit import jit_ieee
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.plan import philox

MOST_SUBSTITUTES = 100  # draws of a substitute for an unreadable sample

_ROUNDS = 4
_SMALLEST_SIDE = 64  # with a smaller domain, orders of few samples would not look random
_SUBSTITUTE = np.uint64(0xFF00)  # in place of view and operation: no operation is 255
_TAG = np.uint64(0xFFFFFFFF)  # in place of an id's high word, which is smaller


@dataclass(frozen=True)
class Order:
    """Shuffled orders of `count` samples: a permutation per epoch that takes no memory."""

    count: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= 2**60:
            raise MillError(f"an order needs 0 to 2**60 samples, not {self.count}")
        if not 0 <= self.seed < 2**64:
            raise MillError(f"the seed must be 0 to 2**64 - 1, not {self.seed}")

    def ids(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Sample ids, int64, at positions start..stop-1 of the epoch's order."""
        if not 0 <= start <= stop <= self.count:
            raise MillError(f"an order of {self.count} samples has no positions {start} to {stop}")
        if not 0 <= epoch < 2**32:
            raise MillError(f"the epoch must be 0 to 2**32 - 1, not {epoch}")
        ids = np.empty(stop - start, np.int64)
        rows = max(math.isqrt(max(self.count - 1, 0)) + 1, _SMALLEST_SIDE)
        columns = max(-(-self.count // rows), _SMALLEST_SIDE)
        _permute(np.uint64(self.seed), np.uint64(epoch), self.count, rows, columns, start, ids)
        return ids


def steps(count: int, global_batch: int, drop_last: bool) -> int:
    """Number of steps in an epoch of `count` samples."""
    return count // global_batch if drop_last else -(-count // global_batch)


def share(count: int, global_batch: int, step: int, rank: int, world_size: int) -> tuple[int, int]:
    """Positions [start, stop) of the epoch's order that one rank consumes at one step.

    Step n consumes [n * global_batch, (n + 1) * global_batch), split into one contiguous piece per
    rank. An incomplete last batch is split evenly: sizes differ by at most one.
    """
    first = min(step * global_batch, count)
    size = min(global_batch, count - first)
    return first + size * rank // world_size, first + size * (rank + 1) // world_size


def substitute(seed: int, epoch: int, id: int, attempt: int, count: int) -> int:
    """The substitute for an unreadable sample: the same for every pipeline, rank and resume."""
    return int(_substitute(np.uint64(seed), np.uint64(epoch), id, attempt, count))


@jit_ieee
def _substitute(seed: np.uint64, epoch: np.uint64, id: int, attempt: int, count: int) -> int:
    low, high = philox.halves(id)
    seed_low, seed_high = philox.halves(seed)
    draw = _SUBSTITUTE | np.uint64(attempt)
    word, _, _, _ = philox.block(low, high, epoch, draw, seed_low, seed_high)
    return philox.below(word, count)


@jit_ieee
def _permute(
    seed: np.uint64,
    epoch: np.uint64,
    count: int,
    rows: int,
    columns: int,
    start: int,
    ids: np.ndarray,
) -> None:
    keys = np.empty(2 * _ROUNDS, np.uint64)
    seed_low, seed_high = philox.halves(seed)
    for i in range(_ROUNDS):
        a, b, c, d = philox.block(np.uint64(i), _TAG, epoch, np.uint64(0), seed_low, seed_high)
        keys[2 * i], keys[2 * i + 1] = a << np.uint64(32) | b, c << np.uint64(32) | d
    for i in range(ids.size):
        position = _feistel(keys, rows, columns, np.int64(start + i))
        while position >= count:  # cycle walking
            position = _feistel(keys, rows, columns, position)
        ids[i] = position


@jit_ieee
def _feistel(keys: np.ndarray, rows: int, columns: int, position: int) -> int:
    """Feistel network: a keyed bijection of the rows x columns cells of a table.

    Each round shifts one coordinate by a hash of the other, which is invertible.
    """
    row, column = position // columns, position % columns
    for i in range(_ROUNDS):
        row += _hash(keys[2 * i], column, rows)
        row -= rows if row >= rows else 0
        column += _hash(keys[2 * i + 1], row, columns)
        column -= columns if column >= columns else 0
    return row * columns + column


@jit_ieee
def _hash(key: np.uint64, value: int, n: int) -> int:
    """A number below n, from the high word of SplitMix64's finaliser of key + value."""
    z = np.uint64(value) + key
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return philox.below((z ^ (z >> np.uint64(31))) >> np.uint64(32), n)
