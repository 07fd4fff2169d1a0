"""Tune a pipeline while it runs: measure windows, apply `decide` and log the result.

Everything happens in the thread that fetches the batches, when it fetches one and while it waits.
No sample depends on it: the same tasks are queued, only more or fewer threads run them.

Memory bound: prefetched batches and the workers' buffers take at most MEMORY_SHARE of the memory
that is free when the loader is built, divided among the ranks of the machine; batches on a GPU take
at most GPU_SHARE of its memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.loaders.common import ranks, threads
from patchmill.loaders.files import host
from patchmill.loaders.pipelines import FilledBatch
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.crew import Crew
from patchmill.loaders.pipelines.stages import StageCounters
from patchmill.loaders.pipelines.tuning import controller
from patchmill.loaders.pipelines.tuning.controller import Limits, Setting, Window

log = logging.getLogger("patchmill")

MEMORY_SHARE, GPU_SHARE = 1 / 4, 1 / 20
UNKNOWN_MEMORY = 4 << 30  # bytes assumed free if the system does not report them
MOST_WORKERS = 64  # or one per core, if there are more cores
MOST_PREFETCH = 16
IN_USE = 2  # batches besides those ahead: one in the training loop, one that it waits for
BUFFERS = 3  # memory that a worker needs to decode and render an image, in images
SETTLING_S = 0.2  # after a change, before a window begins
WINDOW_S, LONGEST_S = 0.5, 3.0  # of a window, usually and with slow samples
PAUSE_S = 3.0  # a longer gap is not a step: the training loop compiles, evaluates or saves
ALIKE = 0.25  # difference of shares between epochs up to which the search is not repeated

SetWorkers = Callable[[Crew, int, int, bool], None]  # workers, batches ahead, True to measure


class Tuning:
    """The tuned setting of a pipeline, across all its iterations."""

    def __init__(self, config: PipelineConfig, counters: StageCounters, one_thread: bool) -> None:
        """`one_thread`: the crew is a single thread, with a fixed number of inner threads."""
        self.counters = counters
        self._config, self._one_thread = config, one_thread
        self._free = (host.free_memory() or UNKNOWN_MEMORY) / ranks.local_size()
        self._image_bytes = self._largest_image = 0.0
        self._start = self.limits().clip(1 if one_thread else config.workers, config.prefetch)
        self.setting, self.windows = self._start, list[Window]()
        self.settled = False
        self._settled_by: Window | None = None
        self._logged: Setting | None = None
        # Totals of the iterations so far: several short ones can make up a window.
        self.seconds = self.waited = 0.0
        self.changed = self.totals()
        self.window_start: Totals | None = None

    @property
    def varies_workers(self) -> bool:
        return "workers" in self._config.auto and not self._one_thread

    def limits(self) -> Limits:
        """The range of settings, from the memory needed for batches and images seen so far."""
        config, budget = self._config, self._free * MEMORY_SHARE / 2
        cores = max(round(threads.core_time() / ranks.local_size()), 1)
        workers = (1, 1) if self._one_thread else (config.workers, config.workers)
        if self.varies_workers:
            room_for = int(budget / max(BUFFERS * self._largest_image, 1))
            workers = (1, max(min(max(MOST_WORKERS, cores), room_for), min(cores, config.workers)))
        prefetch = (config.prefetch, config.prefetch)
        if "prefetch" in config.auto:
            prefetch = (1, min(max(self._batches(budget) - IN_USE, 1), MOST_PREFETCH))
        return Limits(cores, config.max_batch, workers, prefetch)

    def observe(self, shapes: np.ndarray) -> None:
        """Record the sizes of a batch's images."""
        sizes = 3 * shapes.prod(1, dtype=np.int64)
        self._image_bytes = float(sizes.mean())
        self._largest_image = max(self._largest_image, float(sizes.max()))

    def update(self) -> bool:
        """Begin a window, or end it and decide, when due; True if the crew must change."""
        now, before, workers = self.totals(), self.setting, self.setting.workers
        if self.window_start is None:
            since = now.since(self.changed)
            if since.seconds >= SETTLING_S and since.samples >= 2 * workers:
                self.window_start = now
            return False
        since = now.since(self.window_start)
        enough = since.seconds >= WINDOW_S and since.samples >= 8 * workers
        if not enough and since.seconds < LONGEST_S:
            return False
        self._decide(Window(before, *since))
        if self.setting == before and not self.settled:
            self.window_start = now
            return False
        self.changed, self.window_start = now, None
        return True

    def _decide(self, window: Window) -> None:
        """Choose the next setting from one more window; once settled, log it in one line."""
        if self.settled:
            if self._settled_by is not None and _alike(window, self._settled_by):
                return
            self.settled, self.windows = False, []
            if window.setting != self._start:
                self.setting = self._start
                return
        self.windows.append(window)
        limits = self.limits()
        decision = controller.decide(self.windows, self._start, limits)
        self.setting, self.settled = decision.setting, decision.settled
        if self.settled:
            self._settled_by = next(w for w in self.windows[::-1] if w.setting == self.setting)
            if self._logged != self.setting:
                self._logged = self.setting
                log.info("%s, because %s", controller.text(self.setting, limits), decision.why)

    def totals(self) -> Totals:
        lanes = self.counters.workers
        return Totals(
            self.seconds,
            sum(lane.items["plan"] for lane in lanes),
            self.waited,
            sum(lane.busy_ns for lane in lanes) / 1e9,
            sum(lane.cpu_ns for lane in lanes) / 1e9,
            sum(lane.nanoseconds.get("read", 0) for lane in lanes) / 1e9,
        )

    def _batches(self, budget: float) -> int:
        """Number of batches that fit into memory: views, and on a GPU also decoded images."""
        config = self._config
        views = layout.elements(config.targets, config.max_batch) * config.dtype.itemsize
        if config.device.type != "cuda":
            return int(budget / views)
        images = max(self._image_bytes * config.max_batch, 1)
        on_gpu = torch.cuda.get_device_properties(config.device).total_memory * GPU_SHARE
        return int(min(on_gpu / views, budget / images))


class Tuned:
    """One iteration of a pipeline, as a `Run`; adjusts the crew until the setting has settled."""

    def __init__(self, crew: Crew, tuning: Tuning, set_workers: SetWorkers) -> None:
        self._crew, self._tuning, self._set_workers = crew, tuning, set_workers
        self._before, self._waited_before = tuning.seconds, tuning.waited
        self._waited = self._waits_since = self._steps_since = 0.0
        self._watching = True
        set_workers(crew, *tuning.setting, True)

    @property
    def seconds(self) -> float:
        return self._crew.seconds

    def check(self) -> None:
        self._crew.check()

    def dismiss(self) -> None:
        self._crew.dismiss()

    def next(self) -> FilledBatch | None:
        if not self._watching:
            return self._crew.next()
        self._waits_since = time.perf_counter()
        if self._steps_since and self._waits_since - self._steps_since > PAUSE_S:
            self._tuning.window_start = None
        filled = self._crew.next(self._update)
        self._steps_since = time.perf_counter()
        self._waited += self._steps_since - self._waits_since
        self._waits_since = 0.0
        if filled is not None:
            self._tuning.observe(filled.shapes)
            self._update()
        return filled

    def _update(self) -> None:
        """Begin a window, or end it and decide, when due."""
        tuning = self._tuning
        waiting = time.perf_counter() - self._waits_since if self._waits_since else 0.0
        tuning.seconds = self._before + self._crew.seconds
        tuning.waited = self._waited_before + self._waited + waiting
        if self._watching and tuning.update():
            self._watching = not tuning.settled
            try:
                self._set_workers(self._crew, *tuning.setting, self._watching)
            except RuntimeError:  # the system has no more threads; the existing ones suffice
                log.debug("no more threads can be started", exc_info=True)


class Totals(NamedTuple):
    """Sums over all iterations, in the order of a Window's measurements."""

    seconds: float
    samples: int
    waited: float
    busy: float
    cpu: float
    read: float

    def since(self, before: Totals) -> Totals:
        return Totals._make(now - then for now, then in zip(self, before, strict=True))


def _alike(one: Window, other: Window) -> bool:
    """True for windows that would lead to the same decision, apart from noise."""
    shares = ("wait_share", "idle", "blocked")
    return one.setting == other.setting and all(
        abs(getattr(one, share) - getattr(other, share)) <= ALIKE for share in shares
    )
