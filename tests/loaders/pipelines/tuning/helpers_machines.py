"""Made-up machines: what a crew with so many workers would do on them, in simulated seconds."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np

from patchmill.loaders.pipelines.tuning import controller
from patchmill.loaders.pipelines.tuning.controller import Decision, Limits, Setting, Window

WINDOW = 0.5


@dataclass
class Machine:
    """Cores that work on one sample at a time, reads that wait, and a loop that takes batches."""

    cores: int = 2
    cpu: float = 0.003  # seconds of a core per sample
    read: Callable[[np.random.Generator], float] = lambda rng: 0.0  # seconds that a read waits
    channels: int = 1000  # reads at a time that the disk serves
    locked: float = 0.0  # share of `cpu` under a lock that one thread has at a time
    step: float = 0.0  # seconds of the training loop per batch
    batch_size: int = 32
    seed: int = 0
    windows: list[Window] = field(default_factory=list)

    def limits(self, workers: tuple[int, int] = (1, 32), prefetch: tuple[int, int] = (1, 16)):
        return Limits(self.cores, self.batch_size, workers, prefetch)

    def tune(self, limits: Limits | None = None, start: Setting | None = None) -> Decision:
        """Let `decide` run the machine until it has settled."""
        self.windows = []
        start, limits = start or Setting(self.cores, 2), limits or self.limits()
        while not (decision := controller.decide(self.windows, start, limits)).settled:
            self.windows.append(self.run(decision.setting))
            assert len(self.windows) <= controller.MOST_WINDOWS + controller.LOOKS
        return decision

    def run(self, setting: Setting, seconds: float = WINDOW) -> Window:
        """Measurements of a window, after the queues have filled."""
        return _Crew(self, setting).window(1.0, 1.0 + seconds)

    def rate(self, setting: Setting) -> float:
        return self.run(setting, 5.0).rate


Process = Generator["float | deque[Process]", None, None]  # yields a delay, or where it waits


class _Crew:
    """Workers and a training loop, as processes that yield how long they take."""

    def __init__(self, machine: Machine, setting: Setting) -> None:
        self._machine, self._setting, self._now = machine, setting, 0.0
        self._rng, self._order = np.random.default_rng(machine.seed), itertools.count()
        self._events: list[tuple[float, int, Process]] = []
        self._tasks: deque[list[int]] = deque()  # each is its batch's count of samples to do
        self._jobs: deque[list[int]] = deque()
        self._idle: deque[Process] = deque()
        self._waiting: deque[Process] = deque()
        self._cores, self._channels = [0.0] * machine.cores, [0.0] * machine.channels
        self._lock, self._began = [0.0], 0.0
        self._totals = dict.fromkeys(("samples", "waited", "busy", "cpu", "read"), 0.0)
        for process in [self._loop(), *(self._worker() for _ in range(setting.workers))]:
            self._resume(process)

    def window(self, begin: float, end: float) -> Window:
        self._run_until(begin)
        before = self._measured()
        self._run_until(end)
        figures = {name: value - before[name] for name, value in self._measured().items()}
        samples = int(figures.pop("samples"))
        return Window(self._setting, end - begin, samples, **figures)

    def _measured(self) -> dict[str, float]:
        waiting = self._now - self._began if self._waiting else 0.0
        return self._totals | {"waited": self._totals["waited"] + waiting}

    def _run_until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self._now, _, process = heapq.heappop(self._events)
            self._resume(process)
        self._now = end

    def _resume(self, process: Process) -> None:
        pause = next(process)
        if isinstance(pause, deque):
            pause.append(process)
        else:
            heapq.heappush(self._events, (self._now + pause, next(self._order), process))

    def _worker(self) -> Process:
        machine, totals = self._machine, self._totals
        while True:
            while not self._tasks:
                yield self._idle
            job, began = self._tasks.popleft(), self._now
            if (wait := machine.read(self._rng)) > 0:
                yield self._claim(self._channels, wait)
            totals["read"] += self._now - began
            if machine.locked:
                yield self._claim(self._lock, machine.cpu * machine.locked)
            yield self._claim(self._cores, machine.cpu * (1 - machine.locked))
            totals["busy"] += self._now - began
            totals["cpu"] += machine.cpu
            totals["samples"] += 1
            job[0] -= 1
            if self._jobs[0] is job and not job[0] and self._waiting:
                self._resume(self._waiting.popleft())

    def _loop(self) -> Process:
        while True:
            while len(self._jobs) <= self._setting.prefetch:
                job = [self._machine.batch_size]
                self._jobs.append(job)
                self._tasks.extend([job] * self._machine.batch_size)
            for process in [self._idle.popleft() for _ in range(len(self._idle))]:
                heapq.heappush(self._events, (self._now, next(self._order), process))
            self._began = self._now
            if self._jobs[0][0]:
                yield self._waiting
            self._totals["waited"] += self._now - self._began
            self._jobs.popleft()
            yield self._machine.step

    def _claim(self, servers: list[float], seconds: float) -> float:
        """Delay until the server that is free first has worked for `seconds`."""
        server = min(range(len(servers)), key=servers.__getitem__)
        servers[server] = max(servers[server], self._now) + seconds
        return servers[server] - self._now
