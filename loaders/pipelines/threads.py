"""The pipeline for any machine: each thread reads, decodes and renders an image while it is in cache.

There are no worker processes, nothing is pickled and nothing is copied: a thread takes one sample,
decodes it into memory of its own, draws its plan, and renders all its views straight into the batch.
All four steps release the interpreter's lock. Batches are handed over in order, and which thread made
which sample leaves no trace in them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

from patchmill.kernels.views import cpu
from patchmill.kernels.views.rows import ROW
from patchmill.loaders import order, plan
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.decode import BadImage, Decoder
from patchmill.loaders.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.pipelines.memory import Blocks
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import Source
from patchmill.loaders.stats import Counters, Stats, collect

log = logging.getLogger("patchmill")

MOST_SUBSTITUTES = 100
STATE_VERSION = 1


class Loader:
    """Iterating gives one epoch of batches; the next iteration gives the next epoch."""

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
        self._prefetch, self._device, self._channels_last = prefetch, device, channels_last
        self._laws, self._targets = plan.laws(recipe), plan.targets(recipe)
        self._dtype = dtype
        elements = cpu.elements(self._targets, batch_size)
        self._blocks = Blocks(elements, dtype, pinned=device.type == "cuda")
        self._upload = _Upload(device) if device.type == "cuda" else None
        self._workers = [_Worker(self) for _ in range(workers)]
        self._epoch, self._step, self._begun = 0, 0, False
        self._seconds = self._waited = 0.0
        _compile(self._workers[0])

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self._steps

    @property
    def epoch(self) -> int:
        """The epoch under way, or the one that comes next."""
        return self._position()[0]

    def __iter__(self) -> Iterator[ViewBatch]:
        if self._begun:  # an iteration that was left early is over
            self._epoch, self._step = self._epoch + 1, 0
        self._begun = True
        if self._step >= self._steps:
            self._epoch, self._step = self._epoch + 1, 0
        jobs: deque[_Job] = deque()
        tasks: SimpleQueue[tuple[_Job, int] | None] = SimpleQueue()
        threads = [
            threading.Thread(target=worker.run, args=(tasks,), name=f"patchmill-{i}", daemon=True)
            for i, worker in enumerate(self._workers)
        ]
        epoch, next_step = self._epoch, self._step
        began = time.perf_counter()
        try:
            for thread in threads:
                thread.start()
            while self._step < self._steps:
                while len(jobs) <= self._prefetch and next_step < self._steps:
                    jobs.append(self._start(epoch, next_step, tasks))
                    next_step += 1
                waiting = time.perf_counter()
                batch = jobs.popleft().wait(self)
                self._waited += time.perf_counter() - waiting
                self._step += 1
                yield batch
                del batch  # the loop's own reference would keep the memory from coming back
            self._epoch, self._step, self._begun = epoch + 1, 0, False
        finally:
            for job in jobs:
                job.cancelled = True
            for _ in threads:
                tasks.put(None)
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            self._seconds += time.perf_counter() - began

    def _start(self, epoch: int, step: int, tasks: SimpleQueue[Any]) -> _Job:
        count = len(self.source)
        start, stop = order.share(count, self.global_batch, step, self.rank, self.world_size)
        job = _Job(self, epoch, self._order.ids(epoch, start, stop))
        for slot in range(stop - start):
            tasks.put((job, slot))
        return job

    def stats(self) -> Stats:
        """Per stage: items, speed and occupancy; how long the training loop waited; the bottleneck."""
        counters = [worker.counters for worker in self._workers]
        return collect(counters, self._seconds, self._waited, len(self.ledger))

    # ------------------------------------------------------------------------------------ resuming

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands: taken inside the loop, the batch in hand counts as consumed."""
        epoch, step = self._position()
        consumed = min(step * self.global_batch, len(self.source))
        return {
            "version": STATE_VERSION,
            "epoch": epoch,
            "consumed": consumed,
            "global_batch": self.global_batch,
            **self._identity(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`: the next iteration gives the batches that had not been consumed."""
        if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
            raise MillError("this is not a loader state of this version of patchmill")
        for field, mine in {**self._identity(), "global_batch": self.global_batch}.items():
            if state.get(field) != mine:
                raise MillError(
                    f"the state was saved with another {field} ({state.get(field)}, here {mine}): "
                    f"{_REMEDY[field]}"
                )
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
        }


_REMEDY = {
    "data": "build the loader on the same list of samples",
    "recipe": "build the loader with the same recipe",
    "seed": "build the loader with the same seed",
    "global_batch": "choose batch_size so that batch_size x world_size stays the same",
}


class _Job:
    """One batch in the making."""

    def __init__(self, loader: Loader, epoch: int, ids: np.ndarray) -> None:
        self.epoch, self.ids, size = epoch, ids, len(ids)
        self.rows = np.empty((size, len(loader._laws)), ROW)
        self.shapes = np.empty((size, 2), np.int32)
        self.flat = loader._blocks.take()[: cpu.elements(loader._targets, size)]
        self.slots = cpu.slots(loader._targets, size, loader._dtype == torch.uint8)
        self.memory, self.half = cpu.numbers(self.flat)
        self.cancelled = False
        self._left, self._error = size, None
        self._lock, self._done = threading.Lock(), threading.Event()

    def finish_one(self, error: BaseException | None = None) -> None:
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            if self._error or not self._left:
                self._done.set()

    def wait(self, loader: Loader) -> ViewBatch:
        self._done.wait()
        if self._error:
            raise self._error
        flat, labels = self.flat, None
        if loader.source.labels is not None:
            labels = torch.from_numpy(np.asarray(loader.source.labels[self.ids], np.int64))
        if loader._upload:
            flat, labels = loader._upload(flat, labels)
        views = cpu.shaped(flat, loader._targets, len(self.ids), loader._channels_last)
        ids = torch.from_numpy(self.ids)
        return ViewBatch(views, ids, labels, self.rows, self.shapes, loader._targets)


class _Worker:
    """One thread's tools: they outlive the epoch, so that their memory is touched once."""

    def __init__(self, loader: Loader) -> None:
        self.counters = Counters()
        self._loader, self._decode, self._scratch = loader, Decoder(), cpu.Scratch()
        self._largest = max(target.size for target in loader._targets)
        self._seed = np.uint64(loader.seed)

    def run(self, tasks: SimpleQueue[tuple[_Job, int] | None]) -> None:
        while task := tasks.get():
            job, slot = task
            if not job.cancelled:
                try:
                    self.make(job, slot)
                    job.finish_one()
                except BaseException as error:
                    job.finish_one(error)
            del job, task  # an idle thread must not keep a batch's memory

    def make(self, job: _Job, slot: int) -> None:
        """Read, decode, plan and render one sample of a batch."""
        began = time.perf_counter_ns()
        id, image, read = self._obtain(job.epoch, int(job.ids[slot]))
        decoded = time.perf_counter_ns()
        height, width, _ = image.shape
        rows = job.rows[slot]
        plan.draw_into(self._loader._laws, self._seed, job.epoch, id, height, width, rows)
        planned = time.perf_counter_ns()
        self.render(image, rows, job, slot)
        job.ids[slot], job.shapes[slot] = id, (height, width)
        self.counters.add((began, began + read, decoded, planned, time.perf_counter_ns()))

    def render(self, image: np.ndarray, rows: np.ndarray, job: _Job, slot: int) -> None:
        pool = self._scratch.fitting(image.shape[0], image.shape[1], self._largest)
        channels_last = self._loader._channels_last
        cpu.render_image(image, rows, job.slots, slot, job.half, channels_last, job.memory, pool)

    def _obtain(self, epoch: int, id: int) -> tuple[int, np.ndarray, int]:
        """The sample's id, pixels and nanoseconds of reading; or its substitute's, if it is bad."""
        loader, read, wanted = self._loader, 0, id
        for attempt in range(MOST_SUBSTITUTES):
            if id not in loader.ledger:
                try:
                    began = time.perf_counter_ns()
                    data = loader.source.read(id)
                    read += time.perf_counter_ns() - began
                    image = self._decode(data)
                    if max(image.shape) > plan.MAX_SIDE:
                        raise BadImage(f"a side of {max(image.shape)} pixels is too long")
                    return id, image, read
                except BadImage as error:
                    loader.ledger.record(id, loader.source.where(id), str(error))
                except OSError as error:
                    reason = error.strerror or str(error)
                    loader.ledger.record(id, loader.source.where(id), reason)
            id = order.substitute(loader.seed, epoch, wanted, attempt, len(loader.source))
        raise MillError(
            f"no readable sample was found in {MOST_SUBSTITUTES} draws to replace sample {wanted}; "
            f"see {loader.ledger.path}"
        )


class _Upload:
    """Host to device on a stream of its own, so that copies hide behind the training step."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._underway: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()

    def __call__(
        self, flat: torch.Tensor, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        while self._underway and self._underway[0][0].query():
            self._underway.popleft()  # the copy is over: its pinned memory may be written again
        with torch.cuda.stream(self._stream):
            views = flat.to(self._device, non_blocking=True)
            if labels is not None:
                labels = labels.to(self._device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._underway.append((copied, flat))
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)
        for tensor in (views, labels):
            if tensor is not None:
                tensor.record_stream(current)
        return views, labels


def _compile(worker: _Worker) -> None:
    """Compile the kernels, or load them from Numba's cache, before threads need them all at once."""
    notice = "compiling the CPU kernels for this machine: about half a minute, once"
    timer = threading.Timer(1.5, log.warning, (notice,))
    timer.daemon = True
    timer.start()
    try:
        loader = worker._loader
        job = _Job(loader, 0, np.zeros(1, np.int64))
        plan.draw_into(loader._laws, worker._seed, 0, 0, 1, 1, job.rows[0])
        worker.render(np.zeros((1, 1, 3), np.uint8), job.rows[0], job, 0)
        loader._order.ids(0, 0, 1)
        order.substitute(0, 0, 0, 0, 1)
    finally:
        timer.cancel()
