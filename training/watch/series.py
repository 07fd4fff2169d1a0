"""Columns of a log of any length, in a bounded number of buckets that widen as rows are added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

MOST = 1000  # a log of more than twice as many rows is drawn as MOST to 2 * MOST buckets


class Position(NamedTuple):
    """A reader's position in a series."""

    generation: int = -1
    buckets: int = 0  # complete ones
    rows: int = 0


class Series:
    """Mean, minimum and maximum of neighbouring rows, in buckets of `stride` rows each.

    The stride doubles when there are twice MOST buckets. Values that are not finite do not count.
    """

    def __init__(self, names: Sequence[str], generation: int = 0) -> None:
        self.names, self.stride, self.rows = list(names), 1, 0
        self._generation = generation  # changes when buckets read before become invalid
        width = len(self.names)
        self._buckets = _Buckets(*(np.zeros((0, width)) for _ in _Buckets._fields))
        self._rest = np.zeros((0, width))  # rows of the incomplete bucket

    def add(self, rows: np.ndarray) -> None:
        """Add rows [n, columns], with NaN for empty cells."""
        self.rows += len(rows)
        while len(rows):
            room = (2 * MOST - len(self._buckets.counts)) * self.stride - len(self._rest)
            self._append(np.concatenate([self._rest, rows[:room]]))
            rows = rows[room:]
            if len(self._buckets.counts) == 2 * MOST:
                self._buckets = _merged(self._buckets, 2)
                self.stride *= 2
                self._generation += 1

    def _append(self, rows: np.ndarray) -> None:
        whole = len(rows) // self.stride * self.stride
        new = _merged(_single(rows[:whole]), self.stride)
        self._buckets = _joined(self._buckets, new)
        self._rest = rows[whole:]

    def since(self, position: Position) -> tuple[dict[str, Any] | None, Position]:
        """Buckets new to a reader at `position`, or None, and the new position.

        The last bucket may be incomplete: the reader replaces it by those of the next call.
        """
        complete = len(self._buckets.counts)
        now = Position(self._generation, complete, self.rows)
        if now == position:
            return None, now
        first = position.buckets if position.generation == self._generation else 0
        new = _Buckets(*(part[first:] for part in self._buckets))
        if len(self._rest):
            new = _joined(new, _merged(_single(self._rest), len(self._rest)))
        columns = {name: _column(new, i, self.stride) for i, name in enumerate(self.names)}
        return {"from": first, "stride": self.stride, "rows": self.rows, "columns": columns}, now


class _Buckets(NamedTuple):
    """Sums, counts and ranges of finite values, each [buckets, columns]."""

    sums: np.ndarray
    counts: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _single(rows: np.ndarray) -> _Buckets:
    finite = np.isfinite(rows)
    return _Buckets(
        np.where(finite, rows, 0.0),
        finite.astype(float),
        np.where(finite, rows, np.inf),
        np.where(finite, rows, -np.inf),
    )


def _merged(buckets: _Buckets, factor: int) -> _Buckets:
    grouped = [part.reshape(-1, factor, part.shape[1]) for part in buckets]
    return _Buckets(grouped[0].sum(1), grouped[1].sum(1), grouped[2].min(1), grouped[3].max(1))


def _joined(one: _Buckets, other: _Buckets) -> _Buckets:
    return _Buckets(*(np.concatenate(parts) for parts in zip(one, other, strict=True)))


def _column(buckets: _Buckets, i: int, stride: int) -> dict[str, list[float | None]]:
    known = buckets.counts[:, i] > 0
    means = buckets.sums[:, i] / np.maximum(buckets.counts[:, i], 1)
    lists = {"mean": _numbers(means, known)}
    if stride > 1:
        lists |= {"low": _numbers(buckets.low[:, i], known)}
        lists |= {"high": _numbers(buckets.high[:, i], known)}
    return lists


def _numbers(values: np.ndarray, known: np.ndarray) -> list[float | None]:
    """Values with seven digits, more than a screen shows; None for unknown values."""
    return [
        float(f"{value:.7g}") if is_known else None
        for value, is_known in zip(values.tolist(), known.tolist(), strict=True)
    ]
