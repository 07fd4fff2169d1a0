"""One turn: a number of training-engine steps on a feed, with the time of each part of a step.

Parts are timed in the engine's hooks: before and after it takes a batch, after the backward pass,
and after the optimiser step. On a GPU the times are CUDA events, so the wait for a batch is the
time that the GPU waits.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from patchmill.benchmarks.lib import timing
from patchmill.training import engine
from patchmill.training.ranks.signals import Signals
from patchmill.training.runtime.hooks import Hooks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchmill.benchmarks.lib.training.feeds import Feed
    from patchmill.loaders.batch import ViewBatch
    from patchmill.loaders.loader import Loader
    from patchmill.training import methods
    from patchmill.training.ranks.failures import StackDump
    from patchmill.training.runtime.state import State

WAIT, PASSES, OPTIMISER, REST = "data", "forward and backward", "optimiser", "teacher and log"
PARTS = (WAIT, PASSES, OPTIMISER, REST)
STEPS_PER_EPOCH = 10**9  # no turn reaches the end of an epoch


@dataclass(frozen=True)
class TurnResult:
    images_per_s: float
    seconds: dict[str, float]  # of a step, by part
    cores: float  # busy with this process and its workers
    gpu_bytes: int  # peak GPU memory allocated by torch

    @property
    def wait(self) -> float:
        """Share of the time spent waiting for a batch."""
        return self.seconds[WAIT] / sum(self.seconds.values())


def run_turn(state: State, stacks: StackDump, feed: Feed, warm_up: int, steps: int) -> TurnResult:
    """Train `warm_up` uncounted steps, to bring queues to a steady state, then `steps`."""
    timing.wait_until_idle()
    feed.drop_queued()
    state.loader, state.steps_per_epoch = cast("Loader", feed), STEPS_PER_EPOCH
    if warm_up:
        engine.train_steps(state, PartTimer(state, stacks, warm_up))
    timing.synchronize_gpu()
    on_gpu = state.world.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(state.world.device)
    timer = PartTimer(state, stacks, steps)
    start, cpu_seconds = time.perf_counter(), timing.cpu_seconds()
    engine.train_steps(state, timer)
    timing.synchronize_gpu()
    seconds = time.perf_counter() - start
    cpu_seconds = timing.cpu_seconds() - cpu_seconds
    gpu_bytes = torch.cuda.max_memory_allocated(state.world.device) if on_gpu else 0
    cores = cpu_seconds / seconds
    return TurnResult(timer.images / seconds, timer.part_seconds(), cores, gpu_bytes)


class PartTimer(Hooks):
    """Hooks that time each part of a step and stop after a given number of steps; no outputs."""

    def __init__(self, state: State, stacks: StackDump, steps: int) -> None:
        super().__init__(state, Signals(), stacks, outputs=None)
        self.images, self._steps, self._remaining = 0, steps, steps
        self._on_gpu = state.world.device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []  # part of a step, and its end time
        self._mark("")

    def next_batch(self, batches: Iterator[ViewBatch]) -> ViewBatch:
        self._mark(REST)
        batch = super().next_batch(batches)
        self._mark(WAIT)
        return batch

    def after_backward(self, batch: ViewBatch, losses: methods.Losses) -> None:
        self._mark(PASSES)
        self.images += len(batch)
        super().after_backward(batch, losses)

    def after_step(self, grad_norm: torch.Tensor | None, lr: float) -> None:
        self._mark(OPTIMISER)
        super().after_step(grad_norm, lr)
        self._remaining -= 1
        if not self._remaining:
            self._mark(REST)
            self.stopped = 1

    def part_seconds(self) -> dict[str, float]:
        """Mean seconds of a step by part; on a GPU, call after synchronising."""
        seconds = dict.fromkeys(PARTS, 0.0)
        for (_, before), (part, now) in itertools.pairwise(self._marks):
            elapsed = before.elapsed_time(now) / 1e3 if self._on_gpu else now - before
            seconds[part] += elapsed / self._steps
        return seconds

    def _mark(self, part: str) -> None:
        moment: Any = time.perf_counter()
        if self._on_gpu:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._marks.append((part, moment))
