"""The loader: which samples come when, where an epoch stands, and what a pipeline makes of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from patchmill.kernels.views import layout
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.order.schedule import Schedule, whole
from patchmill.loaders.pipelines import FilledBatch, Pipeline, Run
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.stream.source import StreamSource
from patchmill.loaders.stats import Stats

STATE_VERSION = 1


class Loader:
    """Iterating gives one epoch of batches; the next iteration gives the next epoch.

    An iteration that is left early counts as its epoch. There is one at a time: a new one ends
    another that is still under way.
    """

    def __init__(
        self,
        source: Source | StreamSource,
        recipe: Recipe,
        schedule: Schedule,
        pipeline: Pipeline,
        *,
        seed: int,
        workers: int,
        channels_last: bool,
        ledger: Ledger,
        masks: str = "",
        backgrounds: str = "",
    ) -> None:
        self.source, self.recipe, self.pipeline, self.seed = source, recipe, pipeline, seed
        self.ledger, self._masks, self._backgrounds = ledger, masks, backgrounds
        self._schedule, self._steps = schedule, schedule.steps
        self._targets, self._channels_last = draw.targets(recipe), channels_last
        self._workers = workers
        self._run: Run | None = None
        self._epoch, self._step, self._begun = 0, 0, False
        self._seen, self._seconds, self._waited = 0, 0.0, 0.0

    def __len__(self) -> int:
        """Steps in an epoch."""
        if self._steps is None:
            raise TypeError("a stream does not tell its length: build the loader with steps=")
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
                self._schedule.consumed(self._step)
                self._seen += len(batch)
                self.ledger.allow(self._seen)
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
        run = self._run
        seconds = self._seconds + (run.seconds if run else 0.0)
        stages = self.pipeline.stages(seconds)
        unmasked = self.pipeline.unmasked()
        return Stats(stages, self._workers, seconds, self._waited, len(self.ledger), unmasked)

    def _begin(self) -> Run:
        self._end()
        if self._begun or self._is_over():  # an iteration that was left early is over
            self._epoch, self._step, self._begun = self._epoch + 1, 0, False
        self._run = run = self.pipeline.run(self._schedule.portions(self._epoch, self._step))
        self._begun = True
        return run

    def _end(self) -> None:
        if run := self._run:
            run.dismiss()

    def _batch(self, filled: FilledBatch) -> ViewBatch:
        ids, targets = filled.ids, self._targets
        views = layout.views_by_group(filled.flat, targets, len(ids), self._channels_last)
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
            **self._schedule.save(step),
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
        epoch = whole(state, "epoch")
        self._end()
        self._epoch, self._step = epoch, self._schedule.load(state)
        self._begun = False

    def _position(self) -> tuple[int, int]:
        """Epoch and step; the end of an epoch is the beginning of the next."""
        return (self._epoch + 1, 0) if self._is_over() else (self._epoch, self._step)

    def _is_over(self) -> bool:
        return self._steps is not None and self._step >= self._steps

    def _identity(self) -> dict[str, Any]:
        return {
            "data": self.source.fingerprint,
            "recipe": self.recipe.fingerprint(),
            "seed": self.seed,
            **({"masks": self._masks} if self._masks else {}),
            **({"backgrounds": self._backgrounds} if self._backgrounds else {}),
            **self._schedule.identity(),
        }


_REMEDY = {
    "data": "build the loader on the same list of samples",
    "recipe": "build the loader with the same recipe",
    "seed": "build the loader with the same seed",
    "masks": "build the loader with the same masks",
    "backgrounds": "build the loader with the same backgrounds",
    "global_batch": "choose batch_size so that batch_size x world_size stays the same",
    "batch_size": "a stream goes on only with the same batch_size",
    "rank": "a stream goes on only from each rank's own state",
    "world_size": "a stream goes on only with the same number of ranks",
    "steps": "build the loader with the same steps",
}
