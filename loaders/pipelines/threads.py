"""The pipeline for any machine: a thread reads, decodes and renders an image while it is in cache.

There are no worker processes, nothing is pickled and nothing is copied: a thread takes one sample,
decodes it into memory of its own, draws its plan, and renders all its views straight into the
batch. All four steps release the interpreter's lock. Batches are handed over in order, and which
thread made which sample leaves no trace in them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchmill.kernels.jit import announced
from patchmill.kernels.views import layout
from patchmill.loaders import order, plan
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.pipelines.crew import Crew, Job
from patchmill.loaders.pipelines.memory import Blocks
from patchmill.loaders.pipelines.upload import Upload
from patchmill.loaders.pipelines.worker import Work, Worker
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import Source
from patchmill.loaders.stats import Stats, collect

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
        batch_size: int,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        channels_last: bool,
        rank: int,
        world_size: int,
        workers: int,
        drop_last: bool,
        prefetch: int,
        ledger: Path,
    ) -> None:
        self.source, self.recipe, self.seed = source, recipe, seed
        self.rank, self.world_size = rank, world_size
        self.global_batch = batch_size * world_size
        self.ledger = Ledger(ledger, len(source))
        self._steps = order.steps(len(source), self.global_batch, drop_last)
        self._order = order.Order(len(source), seed)
        self._prefetch, self._channels_last = prefetch, channels_last
        self._targets = plan.targets(recipe)
        self._blocks = Blocks(
            layout.elements(self._targets, min(batch_size, len(source))),
            dtype,
            pinned=device.type == "cuda",
        )
        self._upload = Upload(device) if device.type == "cuda" else None
        largest = max(target.size for target in self._targets)
        work = Work(source, self.ledger, seed, plan.laws(recipe), largest, channels_last)
        self._workers = [Worker(work) for _ in range(workers)]
        self._crew: Crew | None = None
        self._epoch, self._step, self._begun = 0, 0, False
        self._seconds = self._waited = 0.0
        with announced():
            self._workers[0].compile(self._job(0, self._order.ids(0, 0, 1)))

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self._steps

    @property
    def epoch(self) -> int:
        """The epoch under way, or the one that comes next."""
        return self._position()[0]

    def __iter__(self) -> Iterator[ViewBatch]:
        crew = self._begin()
        try:
            epoch, next_step = self._epoch, self._step
            while self._step < self._steps:
                while len(crew.jobs) <= self._prefetch and next_step < self._steps:
                    crew.begin(self._job(epoch, self._ids(epoch, next_step)))
                    next_step += 1
                waiting = time.perf_counter()
                batch = self._batch(crew.next())
                self._waited += time.perf_counter() - waiting
                self._step += 1
                yield batch
                del batch  # the loop's own reference would keep the memory from coming back
                crew.check()
            self._epoch, self._step, self._begun = epoch + 1, 0, False
        finally:
            crew.dismiss()
            self._seconds += crew.seconds
            if self._crew is crew:
                self._crew = None

    def close(self) -> None:
        """End the iteration under way, if there is one, and let go of memory kept for batches."""
        self._end()
        self._blocks.clear()

    def stats(self) -> Stats:
        """Per stage: items, speed, occupancy; how long the training loop waited; the bottleneck."""
        counters = [worker.counters for worker in self._workers]
        seconds = self._seconds + (self._crew.seconds if self._crew else 0.0)
        return collect(counters, seconds, self._waited, len(self.ledger))

    def _begin(self) -> Crew:
        self._end()
        if self._begun or self._step >= self._steps:  # an iteration that was left early is over
            self._epoch, self._step = self._epoch + 1, 0
        self._begun = True
        self._workers = [worker.usable() for worker in self._workers]
        self._crew = Crew(self._workers)
        return self._crew

    def _end(self) -> None:
        if self._crew:
            self._crew.dismiss()

    def _ids(self, epoch: int, step: int) -> np.ndarray:
        count = len(self.source)
        start, stop = order.share(count, self.global_batch, step, self.rank, self.world_size)
        return self._order.ids(epoch, start, stop)

    def _job(self, epoch: int, ids: np.ndarray) -> Job:
        flat = self._blocks.take()[: layout.elements(self._targets, len(ids))]
        return Job(epoch, ids, flat, self._targets)

    def _batch(self, job: Job) -> ViewBatch:
        flat, labels = job.flat, None
        if self.source.labels is not None:
            labels = torch.from_numpy(np.asarray(self.source.labels[job.ids], np.int64))
        if self._upload:
            flat, labels = self._upload(flat, labels)
        views = layout.shaped(flat, self._targets, len(job.ids), self._channels_last)
        ids = torch.from_numpy(job.ids)
        return ViewBatch(views, ids, labels, job.rows, job.shapes, self._targets)

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
