"""Schedules: the sample ids of a rank's batches, step by step, and the state to resume from.

`ShuffledSchedule` serves numbered sources: its state is a sample count, which any number of ranks
can resume. `StreamSchedule` serves streams: each rank reads its own shards and saves its position
in them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief
from patchmill.loaders.order import permutation
from patchmill.loaders.pipelines import BatchIds
from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.loaders.sources.stream.stream import StreamPosition


class Schedule(Protocol):
    """The order of a loader's batches."""

    steps: int | None  # in an epoch; None if an epoch is as long as the stream

    def batches(self, epoch: int, step: int) -> Iterator[BatchIds]:
        """This rank's batches of an epoch, starting at `step`."""
        ...

    def identity(self) -> dict[str, Any]:
        """Values that a saved state and the loader that resumes it must share."""
        ...

    def consumed(self, step: int) -> None:
        """Report that the first `step` batches of the epoch have been delivered."""
        ...

    def save(self, step: int) -> dict[str, Any]:
        """The state after `step` batches of the epoch."""
        ...

    def load(self, state: dict[str, Any]) -> int:
        """Restore a saved state; return the step to resume at."""
        ...


class Prefetched(Protocol):
    """Samples that can be prefetched: a source, or its decoded cache."""

    def __len__(self) -> int: ...
    def prefetch(self, ids: np.ndarray) -> None: ...


class ShuffledSchedule:
    """A new permutation of all samples in every epoch."""

    steps: int | None

    def __init__(
        self,
        source: Prefetched,
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

    def batches(self, epoch: int, step: int) -> Iterator[BatchIds]:
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
        return state_number(state, "consumed", self._global_batch) // self._global_batch


class StreamSchedule:
    """Batches of a stream in reading order.

    With `steps`, an epoch is that many batches: a rank that runs out of shards reads them again
    (the next round), with new decisions. Without, an epoch is all samples of the rank's shards.
    """

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
        # By number of completed steps: the round, and the position in it.
        self._positions: dict[int, tuple[int, StreamPosition]] = {}
        self._ids: dict[int, np.ndarray] = {}  # of batches in progress, by the step after them

    def batches(self, epoch: int, step: int) -> Iterator[BatchIds]:
        round, position = self._positions.get(step, _START)
        self._positions, self._ids = {step: (round, position)}, {}
        self._source.clear()
        while True:
            first, round_epoch = step, epoch + (round << _ROUND_BITS)
            samples = self._source.stream.samples(
                round_epoch, self._rank, self._world_size, position
            )
            while batch := list(itertools.islice(samples, self._batch_size)):
                incomplete = len(batch) < self._batch_size
                if incomplete and (self._drop_last or self.steps is not None):
                    break
                step += 1
                self._positions[step] = (round, batch[-1].after)
                self._ids[step] = self._source.hold(batch, round_epoch)
                yield round_epoch, self._ids[step]
                if step == self.steps:
                    return
            if self.steps is None:
                return
            if step == first and position == StreamPosition():
                raise MillError(
                    f"the shards of rank {self._rank} hold less than one batch of "
                    f"{self._batch_size}: use a smaller batch_size, or more shards"
                )
            round, position = round + 1, StreamPosition()

    def identity(self) -> dict[str, Any]:
        return {
            "batch_size": self._batch_size,
            "rank": self._rank,
            "world_size": self._world_size,
            "steps": self.steps,
        }

    def consumed(self, step: int) -> None:
        self._source.release(self._ids.pop(step))
        self._positions.pop(step - 1, None)

    def save(self, step: int) -> dict[str, Any]:
        round, position = self._positions.get(step, _START)
        return {"step": step, "round": round, **vars(position)}

    def load(self, state: dict[str, Any]) -> int:
        step, round = state_number(state, "step"), state_number(state, "round")
        fields = {name: state_number(state, name) for name in vars(StreamPosition())}
        position = StreamPosition(**fields)
        self._positions = {step: (round, position)}
        return step


MOST_EPOCHS = 1 << 24
_START = (0, StreamPosition())
_ROUND_BITS = 24  # see MOST_EPOCHS; a round's decisions are drawn for a separate epoch


def state_number(
    state: dict[str, Any], field: str, multiple_of: int = 1, below: int = 1 << 48
) -> int:
    """Read a whole number from a saved state; MillError if it is missing or damaged."""
    number = state.get(field)
    if not isinstance(number, int) or not 0 <= number < below or number % multiple_of:
        raise MillError(f"the state is damaged: its {field} is {brief(number)}")
    return number
