"""A stream beside the training's, and what must stay alive until its work is done."""

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


class Side:
    """Work that is queued on a GPU, batch by batch; on the CPU it is done at once.

    Each batch's work is a few named stages; when the GPU is through, `counters` have their times.
    """

    def __init__(self, device: torch.device, counters: Counters, most: int) -> None:
        """At most so many batches are queued at a time; who queues more waits for the GPU."""
        self._device, self._counters, self._most = device, counters, most
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._underway: deque[Queued] = deque()
        self._lock = threading.Lock()  # against a thread of an earlier iteration that is late

    @contextmanager
    def queue(self, items: int) -> Iterator[Queued]:
        """Within it, this stream is the current one."""
        with self._lock:
            while len(self._underway) >= self._most:
                self._underway[0].wait()
                self._let_go()
            self._let_go()
            if self.stream is None:
                queued = Queued(items, timed=False)
                yield queued
            else:
                with torch.cuda.device(self._device), torch.cuda.stream(self.stream):
                    queued = Queued(items, timed=True)
                    try:
                        yield queued
                    except BaseException:
                        with suppress(RuntimeError):  # of a CUDA that has failed
                            self.stream.synchronize()  # what is kept may be in use
                        raise
            self._underway.append(queued)
            if self.stream is None:
                self._let_go()

    def finish(self) -> None:
        """Wait for all that is queued; if CUDA has failed, forget it."""
        try:
            if self.stream is not None:
                self.stream.synchronize()
            with self._lock:
                self._let_go()
        except RuntimeError:  # who asks for the next batch is told
            with self._lock:
                self._underway.clear()

    def _let_go(self) -> None:
        while self._underway and self._underway[0].is_over():
            queued = self._underway.popleft()
            for stage, nanoseconds in queued.times():
                self._counters.add(stage, nanoseconds, queued.items)


class Queued:
    """One batch's work on a stream."""

    def __init__(self, items: int, timed: bool) -> None:
        self.items = items
        self._timed, self._stages, self._kept = timed, list[str](), list[Any]()
        self._marks = [self._mark()]

    def done(self, stage: str) -> None:
        """What was queued since the last call, or the beginning, is this stage."""
        self._stages.append(stage)
        self._marks.append(self._mark())

    def keep(self, *things: Any) -> None:
        """The work uses them: they live until it is over."""
        self._kept += things

    @property
    def event(self) -> torch.cuda.Event | None:
        """Passed when all is done; None where it is done already."""
        return self._marks[-1] if self._timed else None

    def is_over(self) -> bool:
        return not self._timed or self._marks[-1].query()

    def wait(self) -> None:
        if self._timed:
            self._marks[-1].synchronize()

    def times(self) -> list[tuple[str, int]]:
        """Nanoseconds of each stage, once it is over."""
        spans = []
        for begin, end in itertools.pairwise(self._marks):
            spans.append(int(begin.elapsed_time(end) * 1e6) if self._timed else end - begin)
        return list(zip(self._stages, spans, strict=True))

    def _mark(self) -> Any:
        if not self._timed:
            return time.perf_counter_ns()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark
