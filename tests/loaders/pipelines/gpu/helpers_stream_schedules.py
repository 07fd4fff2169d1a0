"""Schedules: the pipelines' own code in a random order of events, on the model of a GPU."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers_streams import Dali, Gpu, Stream, encoded_image

from patchmill.kernels.views import layout
from patchmill.loaders.pipelines import memory
from patchmill.loaders.pipelines.dali import decoder as dali_decoder
from patchmill.loaders.pipelines.dali import feeder
from patchmill.loaders.pipelines.dali.feeder import AHEAD, DaliFeeder, DaliJob
from patchmill.loaders.pipelines.dali.pipeline import GpuBackend
from patchmill.loaders.pipelines.feeder_jobs import FeederJobs
from patchmill.loaders.pipelines.gpu import arena, device_cache, side_stream
from patchmill.loaders.pipelines.gpu import views as gpu_views
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe, Views
from patchmill.loaders.stats import Counters

BLOCK, STEP = 64, 256  # bytes of an arena's blocks, and of a step of the device cache
SAMPLES, MOST_BATCH = 6, 2
STEPS = 32  # of a schedule
TARGETS = draw.targets(Recipe((Views("a", 1, 2),), name="speck"))
_LABELS = np.arange(SAMPLES)
_WITH_TORCH = (memory, side_stream, gpu_views, device_cache)


def prepare(patch: pytest.MonkeyPatch) -> None:
    """Take out what needs a GPU; each schedule puts the model in its place."""
    for module in _WITH_TORCH:
        patch.setattr(module, "torch", None)
    for module in (arena, gpu_views):
        patch.setattr(module, "BLOCK_BYTES", BLOCK)
    patch.setattr(device_cache, "STEP_BYTES", STEP)
    patch.setattr(device_cache, "copy_images", None)
    patch.setattr(gpu_views, "render", SimpleNamespace())
    patch.setattr(gpu_views, "upload", None)
    patch.setattr(gpu_views.GpuViews, "_warm_up", lambda views: None)
    patch.setattr(feeder, "Gatherer", lambda *_: None)
    patch.setattr(dali_decoder, "_tensor_list", list)
    patch.setattr(dali_decoder, "_build_pipeline", None)


def seeds(count: int) -> Iterator[int]:
    """Numbers of schedules, with the garbage collector at rest for most of them: it is a third."""
    gc.freeze()
    gc.disable()
    try:
        for seed in range(count):
            yield seed
            if seed % 2000 == 1999:
                gc.collect()
    finally:
        gc.enable()
        gc.unfreeze()


class Schedule:
    """One iteration of a loader whose threads and GPU take turns by chance, until a race."""

    def __init__(self, seed: int) -> None:
        self.gpu = gpu = Gpu(seed)
        self.random = random.Random(seed)
        self.dali = Dali(gpu)
        for module in _WITH_TORCH:
            module.torch = gpu.torch  # type: ignore[attr-defined]
        device_cache.copy_images = self._copy  # type: ignore[assignment]
        gpu_views.render.render_into = self._render  # type: ignore[assignment]
        gpu_views.upload = self._upload  # type: ignore[assignment]
        dali_decoder._build_pipeline = lambda *_: self.dali  # type: ignore[assignment]
        config: Any = SimpleNamespace(
            source=SimpleNamespace(sample_count=SAMPLES, decoded_images=lambda: None),
            device=torch.device("cuda", 0),
            dtype=torch.float32,
            targets=TARGETS,
            max_batch=MOST_BATCH,
            batch_pixels=None,
            masks=None,
            extra=None,
            views=1,
            workers=1,
            channels_last=False,
            labels=_LABELS.__getitem__,
            device_cache=self.random.choice((None, 2 * STEP)),
        )
        counters: Any = SimpleNamespace(of=lambda crew: Counters(("upload", "render")))
        self.backend = GpuBackend(config, counters)
        self.views = self.backend._views
        self.feeder = DaliFeeder(config, Counters(("decode",)), 0.0, self._made, self.views.side)
        self.ahead = self.random.randint(1, 3)
        self.most_started = self.random.randint(1, self.ahead + 1 + AHEAD)
        self.plain = self.random.choice((0.0, 0.5, 0.5, 1.0))  # share of images for DALI
        self.feeder_jobs = FeederJobs()
        self.started: list[Any] = []  # jobs that the user has not taken yet
        self.users = [gpu.default, Stream(gpu), Stream(gpu)]
        self.held: list[tuple[Any, Stream]] = []  # batches, and the stream that they are for
        self.taken = self.made = self.most_kept = 0
        self._run()
        self.races = self.gpu.races.copy()
        self._end()

    def _run(self) -> None:
        turns = (self._start, self._gather, self._feed, self._take, self._read, self._drop)
        weights = [self.random.random() + 0.1 for _ in turns]
        for turn in self.random.choices(turns, weights, k=STEPS):
            turn()
            self.most_kept = max(self.most_kept, self.dali.lent - len(self.feeder._in_flight))
            if self.gpu.races:
                return
            if self.random.random() < 0.01:
                self.views.clear()

    def _end(self) -> None:
        """Let go of everything, without the garbage collector; races do not count any more."""
        self.dali.end()
        del self.feeder, self.backend, self.views, self.feeder_jobs
        self.started.clear()
        self.held.clear()
        self.gpu.end()

    # ------------------------------------------------------------------------------ what may happen

    def _start(self) -> None:
        """The crew starts a job."""
        self.feeder_jobs.allow(self.taken + self.ahead + 1)
        if len(self.started) < self.most_started:
            size = 1 + (self.random.random() < 0.3)
            ids = np.array(self.random.sample(range(SAMPLES), size))
            job = self.backend.job(0, ids)
            self.started.append(job)
            self.feeder_jobs.put(job)

    def _gather(self) -> None:
        """Workers load the samples of a job, some for DALI."""
        job = next((job for job in self.started if not job.loaded.done), None)
        if job is None:
            return
        worker: Any = SimpleNamespace(plan=_plan, ledger=(), counters=SimpleNamespace(hits=0))
        _, others = arena.plan_cached(worker, job, range(len(job)))
        for slot in others:
            height, width = self.random.randint(1, 4), self.random.randint(1, 4)
            job.shapes[slot] = height, width
            if self.random.random() < self.plain:
                job.encoded[slot] = encoded_image(self.gpu, height, width)
                continue
            allocation = job.arena.allocate(height * width * 3)
            self.gpu.host_writes(job.arena.memory[allocation.block].data_ptr())
            job.locations[slot] = allocation[:2]
        job.loaded.count_down(items=len(job))

    def _feed(self) -> None:
        """One turn of the feeder's loop, if it would not wait."""
        self.feeder._submit_loaded(self.feeder_jobs)
        if self.feeder._in_flight and self.made < self.feeder_jobs.allowed:
            self.feeder._complete_oldest(self.feeder_jobs, None)  # type: ignore[arg-type]

    def _made(self, job: DaliJob, decoded: Any, tasks: Any) -> None:
        self.made += 1
        self.backend.render(job, decoded, tasks)

    def _take(self) -> None:
        """The training loop takes a batch on one of its streams, and queues a step on it."""
        if not (self.started and self.started[0].ready.done):
            return
        job = self.started.pop(0)
        self.taken += 1
        assert job.ready.wait() is None
        stream = self.random.choice(self.users)
        with self.gpu.on(stream):
            batch = self.views.hand_over(job)
            self.gpu.kernel([batch.flat.data_ptr(), batch.labels.data_ptr()], [])
        self.held.append((batch, stream))

    def _read(self) -> None:
        """Read a batch again, perhaps on another stream that waits, and is waited for."""
        if not self.held:
            return
        batch, stream = self.random.choice(self.held)
        other = self.random.choice([stream, *self.users])
        other.wait_event(stream.record_event())
        with self.gpu.on(other):
            self.gpu.kernel([batch.flat.data_ptr(), batch.labels.data_ptr()], [])
        stream.wait_event(other.record_event())

    def _drop(self) -> None:
        """Let go of a batch, whatever stream is current."""
        if self.held:
            with self.gpu.on(self.random.choice(self.users)):
                del self.held[self.random.randrange(len(self.held))]

    # ------------------------------------------------------------------------------ work on the GPU

    def _render(self, flat: Any, images: Any, rows: Any, *rest: Any) -> None:
        assert len(flat) == layout.elements(TARGETS, len(rows))
        self.gpu.kernel(images.pointers.tolist(), [flat.data_ptr()])

    def _upload(self, tensor: Any, device: Any) -> Any:
        on_device = self.gpu.allocate(tensor.nbytes, "a table of labels")
        self.gpu.kernel([], [on_device.data_ptr()])
        return on_device

    def _copy(self, sources: Any, addresses: Any, sizes: Any, device: Any) -> None:
        for address in addresses.tolist():
            self.gpu.part(address, "a cached image")
        self.gpu.kernel(sources.tolist(), addresses.tolist())


def _plan(job: Any, slots: np.ndarray, ids: np.ndarray, shapes: np.ndarray) -> None:
    job.shapes[slots] = shapes
