"""Clocks that jump during training: the weights are the same, and no reported time is absurd."""

from __future__ import annotations

import random
import time
from pathlib import Path
from unittest import mock

import helpers_runs
import torch

from patchmill.training import report
from patchmill.training.runtime import records, run_folder
from trust.check import Check, Outcome, Task

YEAR_S = 365 * 24 * 3600.0


class Jumping:
    """A clock that jumps at some of its readings."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._real, self._offset = rng, time.time, 0.0
        self._often = rng.choice((0.01, 0.3, 1.0))

    def __call__(self) -> float:
        if self._rng.random() < self._often:
            self._offset = self._rng.uniform(-10, 10) * YEAR_S
        return self._real() + self._offset


def run(task: Task) -> Outcome:
    """Let the wall clock jump back and forth by up to ten years, at any reading."""
    outcome, threads = Outcome(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with mock.patch.object(report, "write", lambda folder: folder):
            config = helpers_runs.config(task.folder / "whole", train__epochs=2, evaluate="knn")
            whole = helpers_runs.train(config)
            for index in range(task.tries):
                out = task.folder / str(index)
                outcome.tried()
                with mock.patch.object(time, "time", Jumping(task.random(index))):
                    folder = helpers_runs.train(
                        helpers_runs.config(out, train__epochs=2, evaluate="knn")
                    )
                _compare(outcome, f"seed {task.seed}, clock {index}", whole, folder)
    finally:
        torch.set_num_threads(threads)
    return outcome


def _compare(outcome: Outcome, name: str, whole: Path, folder: Path) -> None:
    try:
        helpers_runs.assert_same(helpers_runs.final(whole), helpers_runs.final(folder))
    except AssertionError as error:
        outcome.failed(f"{name}: weights differ: {error}")
    if records.evaluations(whole) != records.evaluations(folder):
        outcome.failed(f"{name}: evaluations differ")
    wanted, steps = records.read(whole)["step"], records.read(folder)["step"]
    outcome.lost += len(set(wanted) - set(steps))
    outcome.repeated += len(steps) - len(set(steps))
    if (state := run_folder.read_status(folder).get("state")) != "done":
        outcome.failed(f"{name}: its state is {state}")


CHECKS = (
    Check(
        "clocks", "a run whose clock jumps by years",
        run, short=1, standard=20, long=200, seconds=30,
    ),
)  # fmt: skip
