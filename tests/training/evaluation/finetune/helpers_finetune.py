"""A run of a tiny network on a few made-up scenes of three classes, to be fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helpers_trained

from patchmill.loaders.sources import open_source
from patchmill.training.evaluation.finetune import evaluation
from patchmill.training.evaluation.trained_run import TrainedRun

TRAIN = "scenes(count=60, size=32, classes=3)"
OVERRIDES = {
    "data__train": TRAIN,
    "data__test": "scenes(count=24, size=32, seed=1, classes=3)",
    "train__precision": "fp32",
}
SHORT: dict[str, Any] = {"labels": 0.5, "seeds": [0], "epochs": 2, "batch": 8, "warmup": 0.0}


def source():
    return open_source(TRAIN)


def run(out: Path, **overrides: Any) -> TrainedRun:
    return helpers_trained.run(out, **{**OVERRIDES, **overrides})


def evaluate(trained: TrainedRun, **settings: Any):
    return evaluation.evaluate(trained, evaluation.Settings(**{**SHORT, **settings}))
