"""What a loader's batches consist of, step by step, and how that is saved.

A numbered source is `Shuffled`: its state is a count, and any number of ranks can go on from it.
A stream is `Streamed`: each rank reads shards of its own and marks where it stands in them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.order import permutation
from patchmill.loaders.pipelines import BatchIds
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.loaders.sources.stream.stream import StreamPosition


class Schedule(Protocol):
    steps: int | None  # in an epoch; None where only the end of a stream tells

    def portions(self, epoch: int, step: int) -> Iterator[BatchIds]:
        """This rank's batches of an epoch, from a step on."""
        ...

    def identity(self) -> dict[str, Any]:
        """What must be the same where a state is loaded."""
        ...

    def consumed(self, step: int) -> None:
        """The epoch's first `step` batches are made and handed over."""
        ...

    def save(self, step: int) -> dict[str, Any]:
        """The state in which so many steps of the epoch are consumed."""
        ...

    def load(self, state: dict[str, Any]) -> int:
        """Make ready to go on from a saved state: at the step that is returned."""
        ...


class Shuffled:
    steps: int | None

    def __init__(
        self,
        source: Source,
        seed: int,
        batch_size: int,
        rank: int,
        world_size: int,
        drop_last: bool,
    ) -> None:
        self._count, self._rank, self._world_size = len(source), rank, world_size
        self._global_batch = batch_size * world_size
        self._order = permutation.Order(len(source), seed)
        self._prefetch = source.prefetch
        self.steps = self._steps = permutation.steps(len(source), self._global_batch, drop_last)

    def portions(self, epoch: int, step: int) -> Iterator[BatchIds]:
        for current in range(step, self._steps):
            ids = self._ids(epoch, current)
            self._prefetch(ids)
            yield epoch, ids

    def _ids(self, epoch: int, step: int) -> np.ndarray:
        start, stop = permutation.share(
            self._count, self._global_batch, step, self._rank, self._world_size
        )
        return self._order.ids(epoch, start, stop)

    def identity(self) -> dict[str, Any]:
        return {"global_batch": self._global_batch}

    def consumed(self, step: int) -> None:
        pass

    def save(self, step: int) -> dict[str, Any]:
        return {"consumed": step * self._global_batch}

    def load(self, state: dict[str, Any]) -> int:
        return whole(state, "consumed", self._global_batch) // self._global_batch


class Streamed:
    """Batches of a stream. An epoch is `steps` batches of each rank, who starts again with its
    shards, and with other plans, where they do not suffice; without `steps` it is all of them."""

    def __init__(
        self,
        source: StreamSource,
        batch_size: int,
        rank: int,
        world_size: int,
        drop_last: bool,
        steps: int | None,
    ) -> None:
        self.steps = steps
        self._source, self._batch_size, self._drop_last = source, batch_size, drop_last
        self._rank, self._world_size = rank, world_size
        self._marks: dict[
            int, tuple[int, StreamPosition]
        ] = {}  # by step: the round, and where it stands
        self._ids: dict[int, np.ndarray] = {}  # of batches in the making, by the step behind them

    def portions(self, epoch: int, step: int) -> Iterator[BatchIds]:
        round, mark = self._marks.get(step, _BEGINNING)
        self._marks, self._ids = {step: (round, mark)}, {}
        self._source.clear()
        while True:
            began, current = step, epoch + (round << _ROUND_BITS)
            samples = self._source.stream.samples(current, self._rank, self._world_size, mark)
            while batch := list(itertools.islice(samples, self._batch_size)):
                short = len(batch) < self._batch_size
                if short and (self._drop_last or self.steps is not None):
                    break
                step += 1
                self._marks[step] = (round, batch[-1].after)
                self._ids[step] = self._source.hold(batch, current)
                yield current, self._ids[step]
                if step == self.steps:
                    return
            if self.steps is None:
                return
            if step == began and mark == StreamPosition():
                raise MillError(
                    f"the shards of rank {self._rank} hold less than one batch of "
                    f"{self._batch_size}: take a smaller batch_size, or more shards"
                )
            round, mark = round + 1, StreamPosition()

    def identity(self) -> dict[str, Any]:
        return {
            "batch_size": self._batch_size,
            "rank": self._rank,
            "world_size": self._world_size,
            "steps": self.steps,
        }

    def consumed(self, step: int) -> None:
        self._source.release(self._ids.pop(step))
        self._marks.pop(step - 1, None)

    def save(self, step: int) -> dict[str, Any]:
        round, mark = self._marks.get(step, _BEGINNING)
        return {"step": step, "round": round, **vars(mark)}

    def load(self, state: dict[str, Any]) -> int:
        step, round = whole(state, "step"), whole(state, "round")
        mark = StreamPosition(**{name: whole(state, name) for name in vars(StreamPosition())})
        self._marks = {step: (round, mark)}
        return step


_BEGINNING = (0, StreamPosition())
_ROUND_BITS = 24  # epochs are below 2**24; plans of later rounds through the shards are others


def whole(state: dict[str, Any], field: str, unit: int = 1) -> int:
    """A number of a saved state."""
    number = state.get(field)
    if not isinstance(number, int) or number < 0 or number % unit:
        raise MillError(f"the state is damaged: its {field} is {number!r}")
    return number
