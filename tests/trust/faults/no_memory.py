"""Out of memory at any allocation of a loader: one error, no thread left, nothing lost."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import helpers_pipelines

from patchmill.kernels.views.cpu.render import Scratch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines.memory import BlockPool, out_of_memory
from trust.check import Check, Outcome, Task

SAMPLES = 24


class Allocations:
    """Count a loader's allocations; the n-th one fails."""

    def __init__(self, fails_at: int) -> None:
        self.fails_at, self.count, self._lock = fails_at, 0, threading.Lock()

    def another(self) -> bool:
        """Decide if this call fails."""
        with self._lock:
            self.count += 1
            return self.count == self.fails_at


def run(task: Task) -> Outcome:
    """Let one allocation of a block, scratch memory or decoded image fail."""
    outcome, wanted = Outcome(), _epoch(helpers_pipelines.make_loader(SAMPLES))
    with limited(Allocations(0)) as counted:
        _epoch(helpers_pipelines.make_loader(SAMPLES))
    for index in range(task.tries):
        rng = task.random(index)
        fails_at = rng.randint(1, counted.count)
        name = f"seed {task.seed}, allocation {fails_at} of {counted.count}"
        outcome.tried()
        got, state = dict[int, str](), dict[str, Any]()
        try:
            with limited(Allocations(fails_at)):
                loader = helpers_pipelines.make_loader(SAMPLES, workers=rng.randint(1, 3))
                for batch in loader:
                    got |= _hashes(batch)
                    state = loader.state_dict()
                    del batch
        except MillError as error:
            outcome.ends[type(error).__name__] += 1
            loader = helpers_pipelines.make_loader(SAMPLES)
            if state:
                loader.load_state_dict(state)
            more = _epoch(loader)
            outcome.repeated += len(got.keys() & more.keys())
            got |= more
        except BaseException as error:
            outcome.failed(f"{name}: {type(error).__name__}: {error}")
            continue
        outcome.lost += len(wanted.keys() - got.keys())
        if got != wanted:
            outcome.failed(f"{name}: views differ")
        if left := helpers_pipelines.mill_threads():
            outcome.failed(f"{name}: {len(left)} threads are left")
    return outcome


@contextmanager
def limited(allocations: Allocations) -> Iterator[Allocations]:
    allocate, at_least = BlockPool.allocate, Scratch.at_least

    def block(pool: BlockPool, size: int) -> Any:
        if allocations.another():
            raise out_of_memory(size)
        return allocate(pool, size)

    def scratch(self: Scratch, need: int) -> Any:
        if allocations.another():
            raise MemoryError
        return at_least(self, need)

    with (
        mock.patch.object(BlockPool, "allocate", block),
        mock.patch.object(Scratch, "at_least", scratch),
    ):
        yield allocations


def _epoch(loader: Any) -> dict[int, str]:
    return {id: text for batch in loader for id, text in _hashes(batch).items()}


def _hashes(batch: Any) -> dict[int, str]:
    """Hash of each sample's views, by its id."""
    (views,) = batch.views.values()
    return {
        int(id): hashlib.sha256(view.numpy().tobytes()).hexdigest()
        for id, view in zip(batch.ids, views, strict=True)
    }


CHECKS = (
    Check(
        "no-memory", "a loader whose memory runs out at any allocation",
        run, short=3, standard=150, long=3000, seconds=20,
    ),
)  # fmt: skip
