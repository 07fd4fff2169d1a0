"""The loader: which samples come when, where an epoch stands, and what a pipeline makes of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.loaders import order, plan
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.pipelines import Filled, Pipeline, Run
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import Source
from patchmill.loaders.stats import Stats

STATE_VERSION = 1


class Loader:
    """Iterating gives one epoch of batches; the next iteration gives the next epoch.

    An iteration that is left early counts as its epoch. There is one at a time: a new one ends
    another that is still under way.
    """

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        pipeline: Pipeline,
        global_batch: int,
        *,
        seed: int,
        rank: int,
        world_size: int,
        workers: int,
        drop_last: bool,
        channels_last: bool,
        ledger: Ledger,
    ) -> None:
        self.source, self.recipe, self.pipeline, self.seed = source, recipe, pipeline, seed
        self.rank, self.world_size, self.global_batch = rank, world_size, global_batch
        self.ledger = ledger
        self._steps = order.steps(len(source), global_batch, drop_last)
        self._order = order.Order(len(source), seed)
        self._targets, self._channels_last = plan.targets(recipe), channels_last
        self._workers = workers
        self._run: Run | None = None
        self._epoch, self._step, self._begun = 0, 0, False
        self._seconds = self._waited = 0.0

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self._steps

    @property
    def epoch(self) -> int:
        """The epoch under way, or the one that comes next."""
        return self._position()[0]

    def __iter__(self) -> Iterator[ViewBatch]:
        run = self._begin()
        try:
            epoch = self._epoch
            while True:
                waiting = time.perf_counter()
                filled = run.next()
                self._waited += time.perf_counter() - waiting
                if filled is None:
                    break
                batch = self._batch(filled)
                del filled  # references of our own would keep the memory from coming back
                self._step += 1
                yield batch
                del batch
                run.check()
            self._epoch, self._step, self._begun = epoch + 1, 0, False
        finally:
            run.dismiss()
            self._seconds += run.seconds
            if self._run is run:
                self._run = None

    def close(self) -> None:
        """End the iteration under way, if there is one, and let go of memory kept for batches."""
        self._end()
        self.pipeline.clear()

    def stats(self) -> Stats:
        """Per stage: items, speed, occupancy; how long the training loop waited; the bottleneck."""
        seconds = self._seconds + (self._run.seconds if self._run else 0.0)
        stages = self.pipeline.stages(seconds)
        return Stats(stages, self._workers, seconds, self._waited, len(self.ledger))

    def _begin(self) -> Run:
        self._end()
        if self._begun or self._step >= self._steps:  # an iteration that was left early is over
            self._epoch, self._step = self._epoch + 1, 0
        self._begun = True
        self._run = self.pipeline.run(self._epoch, self._batches(self._epoch, self._step))
        return self._run

    def _end(self) -> None:
        if self._run:
            self._run.dismiss()

    def _batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """This rank's ids of each step of the epoch, from the first one on."""
        count, whole = len(self.source), self._order
        for step in range(first, self._steps):
            start, stop = order.share(count, self.global_batch, step, self.rank, self.world_size)
            yield whole.ids(epoch, start, stop)

    def _batch(self, filled: Filled) -> ViewBatch:
        ids, targets = filled.ids, self._targets
        views = layout.shaped(filled.flat, targets, len(ids), self._channels_last)
        return ViewBatch(
            views, torch.from_numpy(ids), filled.labels, filled.rows, filled.shapes, targets
        )

    # ------------------------------------------------------------------------------------ resuming

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands: taken inside the loop, the batch in hand counts as consumed."""
        epoch, step = self._position()
        return {
            "version": STATE_VERSION,
            "epoch": epoch,
            "consumed": step * self.global_batch,
            **self._identity(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`: the next iteration begins with the first batch not consumed."""
        if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
            raise MillError("this is not a loader state of this version of patchmill")
        for field, mine in self._identity().items():
            if state.get(field) != mine:
                raise MillError(
                    f"the state was saved with another {field} ({state.get(field)}, here {mine}): "
                    f"{_REMEDY[field]}"
                )
        for field, unit in (("epoch", 1), ("consumed", self.global_batch)):
            number = state.get(field)
            if not isinstance(number, int) or number < 0 or number % unit:
                raise MillError(f"the state is damaged: its {field} is {number!r}")
        self._end()
        self._epoch, self._step = state["epoch"], state["consumed"] // self.global_batch
        self._begun = False

    def _position(self) -> tuple[int, int]:
        """Epoch and step; the end of an epoch is the beginning of the next."""
        over = self._step >= self._steps
        return (self._epoch + 1, 0) if over else (self._epoch, self._step)

    def _identity(self) -> dict[str, Any]:
        return {
            "data": self.source.fingerprint,
            "recipe": self.recipe.fingerprint(),
            "seed": self.seed,
            "global_batch": self.global_batch,
        }


_REMEDY = {
    "data": "build the loader on the same list of samples",
    "recipe": "build the loader with the same recipe",
    "seed": "build the loader with the same seed",
    "global_batch": "choose batch_size so that batch_size x world_size stays the same",
}
