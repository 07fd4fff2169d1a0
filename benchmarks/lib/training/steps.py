"""A turn of training: some steps of the engine's own loop on a feed, and the time of each part.

Parts are timed in the hooks that the loop calls anyway: before and after it takes a batch, after
the backward pass, and after the optimiser's step. On a GPU, times are those at which the GPU passes
these points, so that waiting for a batch is the time the GPU waits.
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
ENDLESS = 10**9  # steps in an epoch: what happens at its end is not what is measured


@dataclass(frozen=True)
class Turn:
    images_per_s: float
    seconds: dict[str, float]  # of a step, by part
    cores: float  # that were busy, of whomever's work for this
    gpu_bytes: int  # of the GPU's memory that torch had given out, at most

    @property
    def wait(self) -> float:
        """The share of the time in which there was no batch."""
        return self.seconds[WAIT] / sum(self.seconds.values())


def take(state: State, stacks: StackDump, feed: Feed, warm_up: int, steps: int) -> Turn:
    """The first steps, in which queues come to what they are like in a long run, do not count."""
    timing.wait_until_quiet()
    feed.drop_ready()
    state.loader, state.steps_per_epoch = cast("Loader", feed), ENDLESS
    if warm_up:
        engine.train_steps(state, Watch(state, stacks, warm_up))
    timing.finish_gpu()
    on_gpu = state.world.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(state.world.device)
    watch = Watch(state, stacks, steps)
    began, busy = time.perf_counter(), timing.processor_seconds()
    engine.train_steps(state, watch)
    timing.finish_gpu()
    seconds = time.perf_counter() - began
    busy = timing.processor_seconds() - busy
    most = torch.cuda.max_memory_allocated(state.world.device) if on_gpu else 0
    return Turn(watch.images / seconds, watch.seconds(), busy / seconds, most)


class Watch(Hooks):
    """Hooks of a rank without outputs, for a given number of steps, that time each part."""

    def __init__(self, state: State, stacks: StackDump, steps: int) -> None:
        super().__init__(state, Signals(), stacks, outputs=None)
        self.images, self._steps, self._to_go = 0, steps, steps
        self._on_gpu = state.world.device.type == "cuda"
        self._moments: list[tuple[str, Any]] = []  # a part of a step, and when it ended
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
        self._to_go -= 1
        if not self._to_go:
            self._mark(REST)
            self.stopped = 1

    def seconds(self) -> dict[str, float]:
        """Of a step, by part; on a GPU, when it is through with them all."""
        found = dict.fromkeys(PARTS, 0.0)
        for (_, before), (part, now) in itertools.pairwise(self._moments):
            passed = before.elapsed_time(now) / 1e3 if self._on_gpu else now - before
            found[part] += passed / self._steps
        return found

    def _mark(self, part: str) -> None:
        moment: Any = time.perf_counter()
        if self._on_gpu:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._moments.append((part, moment))
