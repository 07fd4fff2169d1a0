"""Runs of one paper's experiment: their folders, training, evaluation and listing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib import runs, untrained
from patchmill.benchmarks.lib.papers.paper import Budget, Paper
from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError
from patchmill.training import expected_hours
from patchmill.training.config import compose
from patchmill.training.evaluation.reliance import scene_settings


@dataclass(frozen=True)
class Experiment:
    paper: Paper
    budget: Budget
    out: Path  # the folder of the runs
    settings: Sequence[str] = ()  # key=value of all trainings, from the command line

    def trainings(self, seed: int) -> dict[str, list[str]]:
        """Overrides of every training of a seed, by the name of its run."""
        trainings = self.paper.trainings(self.budget, seed)
        return {
            name: [*self.budget.overrides, *overrides, *self.settings, f"seed={seed}"]
            for name, overrides in trainings.items()
        }

    def train(self, seed: int, name: str) -> None:
        """Train or resume the run, unless it is finished."""
        runs.train(self.folder(name, seed), *self.trainings(seed)[name])

    def folder(self, name: str, seed: int) -> Path:
        return self.out / f"{name}-{seed}"

    def untrained(self, name: str, seed: int, like: Path) -> Path:
        """Folder of a run without steps: the initial networks of the run `like`."""
        folder = self.folder(name, seed)
        untrained.store(folder, like)
        return folder

    def evaluate(self, folder: Path, evaluation: str, *overrides: str) -> dict[str, Any]:
        """Contents of the evaluation's file, with the budget's number of test scenes."""
        if (test := self.test_data(folder)) and not any(
            o.startswith("data.test=") for o in overrides
        ):
            overrides = (*overrides, f"data.test={test}")
        return runs.evaluate(folder, evaluation, *overrides)

    def test_data(self, folder: Path) -> str | None:
        """The run's own test data, with the budget's number of scenes."""
        test = compose.load(folder).data.test
        scenes = scene_settings(test or "")
        if self.budget.tests is None:
            return test
        if scenes is None:
            raise MillError(f"--tests is a number of scenes, but the test data is {test}")
        return calls.text("scenes", {**scenes, "count": self.budget.tests})

    def plan(self) -> Iterator[str]:
        """Lines with the command and the expected time of every training of the first seed."""
        for name, overrides in self.trainings(0).items():
            yield f"\n{name}\n  python training/run.py {shlex.join(overrides)}"
            try:
                config = compose.compose(overrides)
                device = expected_hours.this_device(config)
                yield f"  {expected_hours.expect(config, 1, device, overrides)}"
            except MillError as error:
                yield f"  {error}"
