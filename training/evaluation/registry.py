"""Evaluations that evaluate.py offers: a title, settings, and a lazily imported function."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from patchmill.training.evaluation import settings
from patchmill.training.evaluation.detect.settings import Settings as Detect
from patchmill.training.evaluation.segment.settings import Settings as Segment

if TYPE_CHECKING:
    from patchmill.training.evaluation.result import EvaluationResult


class Evaluation(NamedTuple):
    title: str
    settings: type
    function: str  # module in this folder, and name: `single_view.evaluate_knn`

    def evaluate(self, run: Any, settings: Any) -> EvaluationResult:
        module, _, name = f"patchmill.training.evaluation.{self.function}".rpartition(".")
        result: EvaluationResult = getattr(importlib.import_module(module), name)(run, settings)
        return result


EVALUATIONS = {
    "knn": Evaluation(
        "kNN accuracy, compared with an untrained network's",
        settings.KNN,
        "single_view.evaluate_knn",
    ),
    "linear": Evaluation(
        "a linear probe with a paper's protocol, on cached features",
        settings.Linear,
        "single_view.evaluate_linear",
    ),
    "online": Evaluation(
        "the metrics of training: kNN, a linear classifier, RankMe and spread",
        settings.Online,
        "online.evaluate_online",
    ),
    "patches": Evaluation(
        "means over 1, 16, 64, 256 patches, in h and z; nearest neighbours of patches",
        settings.Patches,
        "patches.evaluation.evaluate",
    ),
    "finetune": Evaluation(
        "the whole network, fine-tuned on few labels, over several subsets",
        settings.Finetune,
        "finetune.evaluation.evaluate",
    ),
    "reliance": Evaluation(
        "accuracy with swapped or without backgrounds, in greyscale, and under random hues",
        settings.Reliance,
        "reliance.evaluate",
    ),
    "segment": Evaluation(
        "semantic segmentation (Semantic FPN, linear or kNN), compared with an untrained network",
        Segment,
        "segment.command.evaluate",
    ),
    "detect": Evaluation(
        "object detection and instance segmentation, compared with an untrained backbone",
        Detect,
        "detect.evaluation.evaluate",
    ),
}
