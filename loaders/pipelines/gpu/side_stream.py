"""A CUDA side stream next to the training's: work queued batch by batch, with its memory."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from patchmill.loaders.stats import Counters

MOST_QUEUED = 2  # batches: one that the GPU works on, and the next, so that it need not wait
_PRIORITY = -1  # a high one


class SideStream:
    """Queue of batches on a CUDA stream; on the CPU each batch's work is done immediately.

    The work of a batch has a few named stages. Their times go into `counters` when the GPU is done.
    At most MOST_QUEUED batches keep memory alive; queueing more waits for the GPU.

    The stream has a high priority: whenever a thread block of the training step ends, the
    renderer's short kernels go first. With equal priorities they would wait behind whole kernels of
    the step, and the next step for them. The total work is the same either way.
    """

    def __init__(self, device: torch.device, counters: Counters) -> None:
        self._device, self._counters = device, counters
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device, priority=_PRIORITY)
        self._queue: deque[QueuedWork] = deque()
        self._lock = threading.Lock()  # a late thread of an earlier iteration may queue work too

    @contextmanager
    def queue(self, items: int) -> Iterator[QueuedWork]:
        """Queue the work of one batch of `items`; inside, this stream is the current one."""
        with self._lock:
            self._make_room()
            if self.stream is None:
                work = QueuedWork(items, timed=False)
                yield work
            else:
                with torch.cuda.device(self._device), torch.cuda.stream(self.stream):
                    work = QueuedWork(items, timed=True)
                    try:
                        yield work
                    except BaseException:
                        with suppress(RuntimeError):  # CUDA has failed
                            self.stream.synchronize()  # the memory kept alive may be in use
                        raise
            self._queue.append(work)
            if self.stream is None:
                self._release_finished()

    def wait_for_room(self) -> None:
        """Wait until another batch can be queued without waiting."""
        with self._lock:
            self._make_room()

    def synchronize(self) -> None:
        """Wait for all queued work; if CUDA has failed, drop it."""
        try:
            if self.stream is not None:
                self.stream.synchronize()
            with self._lock:
                self._release_finished()
        except RuntimeError:  # raised again by the next batch
            with self._lock:
                self._queue.clear()

    def _make_room(self) -> None:
        self._release_finished()
        while len(self._queue) >= MOST_QUEUED:
            self._queue[0].wait()
            self._release_finished()

    def _release_finished(self) -> None:
        while self._queue and self._queue[0].is_done():
            work = self._queue.popleft()
            work.release()
            for stage, nanoseconds in work.stage_times():
                self._counters.add(stage, nanoseconds, work.items)


class QueuedWork:
    """The work of one batch on a stream."""

    def __init__(self, items: int, timed: bool) -> None:
        self.items = items
        self._timed, self._stages, self._kept_alive = timed, list[str](), list[Any]()
        self._marks = [self._mark()]

    def end_stage(self, stage: str) -> None:
        """Count everything queued since the last call, or the start, as this stage."""
        self._stages.append(stage)
        self._marks.append(self._mark())

    def keep_alive(self, *objects: Any) -> None:
        """Hold references to memory that the work uses until it is done."""
        self._kept_alive += objects

    def release(self) -> None:
        """Release that memory; holders of this object then keep only its event alive."""
        self._kept_alive.clear()

    @property
    def event(self) -> torch.cuda.Event | None:
        """The event after the last stage; None on the CPU, where the work is already done."""
        return self._marks[-1] if self._timed else None

    def is_done(self) -> bool:
        return not self._timed or self._marks[-1].query()

    def wait(self) -> None:
        if self._timed:
            self._marks[-1].synchronize()

    def stage_times(self) -> list[tuple[str, int]]:
        """Nanoseconds of each stage, once the work is done."""
        times = []
        for begin, end in itertools.pairwise(self._marks):
            times.append(int(begin.elapsed_time(end) * 1e6) if self._timed else end - begin)
        return list(zip(self._stages, times, strict=True))

    def _mark(self) -> Any:
        if not self._timed:
            return time.perf_counter_ns()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark
