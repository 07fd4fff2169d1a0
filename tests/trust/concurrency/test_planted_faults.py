"""Checks of the crew detect the faults they are meant to find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="needs Triton")

from patchmill.loaders.pipelines import crew as crews
from patchmill.loaders.pipelines.dali.feeder import DaliFeeder
from patchmill.loaders.pipelines.feeder_jobs import FeederJobs
from patchmill.loaders.pipelines.gpu.arena import ArenaJob
from patchmill.loaders.pipelines.job import Countdown
from patchmill.loaders.pipelines.memory import BlockPool
from patchmill.loaders.pipelines.shift import Shift
from trust.check import Task
from trust.concurrency import crew
from trust.concurrency.planted import planted
from trust.concurrency.world import Gatherer

TRIES = 400

Fault = tuple[Any, str, str, str]
# Owner and name of a function, a line or two of it, and the replacement.
FAULTS: dict[str, Fault] = {
    "an end is not told": (Countdown, "cancel", "self._opened.put(None)", "pass"),
    "the last item is not told": (Countdown, "count_down", "self._opened.put(None)", "pass"),
    "items are counted without the lock": (
        Countdown,
        "count_down",
        "with self._lock:\n        self._left -= items",
        "left = self._left\n    with self._lock:\n        self._left = left - items",
    ),
    "the job is forgotten before it is waited for": (
        crews.Crew,
        "_next",
        "job = oldest[0]",
        "job = self._jobs.popleft()",
    ),
    "a dismissed crew's new jobs are not cancelled": (crews.Crew, "_start", "job.cancel()", "pass"),
    "one thread is not told of the end": (
        crews,
        "_stop_threads",
        "for _ in threads:",
        "for _ in threads[1:]:",
    ),
    "the line is not told of the end": (crews, "_stop_threads", "feeder_jobs.end()", "pass"),
    "jobs are not cancelled at the end": (crews, "_stop_threads", "job.cancel()", "pass"),
    "a worker that is let go drops its task": (
        Shift,
        "get",
        "return task",
        "return None if self._leaving else task",
    ),
    "a task is run twice": (
        Gatherer,
        "run",
        "step(self, job, slots)",
        "step(self, job, slots); step(self, job, slots)",
    ),
    "the line learns too late whom to tell": (
        FeederJobs,
        "put",
        "job.loaded.then = self._tell\n    self._news.put(job)",
        "self._news.put(job)\n    then = self._tell",
    ),
    "a sub-batch is not cancelled": (ArenaJob, "have_sub_batch", "sub_batch.cancel()", "pass"),
    "a refused batch is not waited for": (
        DaliFeeder,
        "_reload",
        "if error := reloaded.wait():\n        raise error",
        "pass",
    ),
    "a block returns while it is lent": (
        BlockPool,
        "acquire",
        "loan = block[:]",
        "self._free.append(block); loan = block[:]",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    owner, function, old, new = FAULTS[name]
    with planted(owner, function, old, new):
        assert any(
            run(Task("planted", 20, tmp_path, seed)).failures
            for run in (crew.random_schedules, crew.bounded_schedules)
            for seed in range(TRIES // 20)
        )
