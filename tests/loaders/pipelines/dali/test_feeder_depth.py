"""Batches in flight: enough that the decoder never waits, and no more memory, in virtual time."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers_virtual_time import VirtualClock

from patchmill.loaders.pipelines import crew as crews
from patchmill.loaders.pipelines import feeder_jobs
from patchmill.loaders.pipelines import job as jobs
from patchmill.loaders.pipelines.dali import feeder as feeders
from patchmill.loaders.pipelines.job import Countdown
from patchmill.loaders.pipelines.worker import Worker
from patchmill.loaders.stats import Counters

DECODE_S, SUBMIT_S, RENDER_S = 0.040, 0.010, 0.012  # of a batch; the last two are the host's
SPREAD = 0.3  # batches take so much more or less
BATCHES, FIRST = 120, 10  # in all, and before the measurement


class SleepingDecoder:
    """A decoder that takes its time: one batch after another, beside the thread that feeds it."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock, self._rng = clock, np.random.default_rng(1)
        self._done, self._free = deque[float](), 0.0
        self.held = self.most_held = 0

    def submit(self, encoded: Any) -> None:
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        self._clock.sleep(SUBMIT_S)
        self._free = max(self._free, self._clock.now) + DECODE_S * varied(self._rng)
        self._done.append(self._free)

    def take(self, stream: Any) -> None:
        self._clock.sleep(max(self._done.popleft() - self._clock.now, 0.0))
        self.held -= 1


def varied(rng: np.random.Generator) -> float:
    return float(rng.uniform(1 - SPREAD, 1 + SPREAD))


class Gatherer:
    """A worker that runs tasks as any does."""

    run, busy = Worker.run, False

    def __init__(self) -> None:
        self.counters = Counters(("plan",))


class Simulation:
    """The real crew and feeder, around a worker, a decoder and a renderer that only sleep."""

    def __init__(self, patch: pytest.MonkeyPatch, gather_s: float, prefetch: int = 2) -> None:
        self.clock = clock = VirtualClock(threads=3)  # the worker, the feeder and the user
        self.decoder, self.gathered, self.made = SleepingDecoder(clock), 0, 0
        rng = np.random.default_rng(2)
        for module in (crews, jobs, feeder_jobs):
            patch.setattr(module, "SimpleQueue", clock.queue())
        patch.setattr(feeders, "BatchDecoder", lambda *_, **__: self.decoder)
        patch.setattr(feeders, "Gatherer", lambda *_: None)
        config: Any = SimpleNamespace(max_batch=1, device=torch.device("cpu"), workers=1)
        feeder = feeders.DaliFeeder(config, Counters(("decode",)), 0.0, self._render, None)

        def gather(worker: Any, job: Any, slots: range) -> None:
            clock.sleep(gather_s * varied(rng))
            job.encoded[0], job.shapes[0] = np.zeros(1, np.uint8), 1
            self.gathered += 1

        self.crew = crews.Crew(
            [Gatherer()],  # type: ignore[list-item]
            gather,
            map(new_job, range(BATCHES)),
            prefetch,
            lambda job: job,
            feeder.run,
            in_decoder=feeders.AHEAD,
        )

    def _render(self, job: Any, decoded: Any, tasks: Any) -> None:
        self.clock.sleep(RENDER_S)
        self.made += 1
        job.ready.count_down()


def new_job(number: int) -> feeders.DaliJob:
    arena: Any = None
    return feeders.DaliJob(0, np.array([number]), 1, arena, Countdown(1))


@pytest.mark.parametrize(("gather", "least"), [(0.8, 0.99), (0.9, 0.99), (1.0, 0.95)])
def test_the_decoder_is_not_starved(
    monkeypatch: pytest.MonkeyPatch, gather: float, least: float
) -> None:
    """The default depth, where gathering a batch takes nearly as long as decoding one."""
    simulation = Simulation(monkeypatch, gather * DECODE_S)
    clock, crew = simulation.clock, simulation.crew
    assert [crew.next().ids[0] for _ in range(FIRST)] == list(range(FIRST))
    began = clock.now
    assert [crew.next().ids[0] for _ in range(FIRST, BATCHES)] == list(range(FIRST, BATCHES))
    rate = (BATCHES - FIRST) * DECODE_S / (clock.now - began)  # of the decoder's own
    assert crew.next() is None
    crew.dismiss()
    assert rate >= least


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_batches_ahead_are_no_more_for_that(monkeypatch: pytest.MonkeyPatch, prefetch: int) -> None:
    """With a slow user, what waits in the decoder is not made into views before its turn."""
    simulation = Simulation(monkeypatch, DECODE_S, prefetch)
    clock, crew = simulation.clock, simulation.crew
    for taken in range(BATCHES):
        assert crew.next().ids.tolist() == [taken]
        clock.sleep(1.0)
        assert simulation.made == min(taken + 1 + prefetch, BATCHES)
        assert simulation.gathered == min(simulation.made + feeders.AHEAD, BATCHES)
    assert simulation.decoder.most_held == feeders.AHEAD
    crew.dismiss()


def test_a_new_number_of_batches_ahead_takes_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation, made = Simulation(monkeypatch, DECODE_S), []
    for ahead in (2, 2, 4, 4, 1, 1, 1, 1, 1):
        simulation.crew.ahead = ahead
        simulation.crew.next()
        simulation.clock.sleep(1.0)
        made.append(simulation.made)
    assert made == [3, 4, 7, 8, 8, 8, 8, 9, 10]
    simulation.crew.dismiss()
