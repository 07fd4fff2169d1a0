"""Evaluations that evaluate.py offers: each a settings class and a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from patchmill.training.evaluation import online, patches, reliance, single_view
from patchmill.training.evaluation.detect.settings import Settings as DetectSettings
from patchmill.training.evaluation.finetune import evaluation as finetune
from patchmill.training.evaluation.result import EvaluationResult
from patchmill.training.evaluation.segment.settings import Settings as SegmentSettings


class Evaluation(NamedTuple):
    title: str
    settings: type
    evaluate: Callable[[Any, Any], EvaluationResult]


def _segment(run: Any, settings: Any) -> EvaluationResult:
    from patchmill.training.evaluation.segment import command  # loads torchvision

    return command.evaluate(run, settings)


def _detect(run: Any, settings: Any) -> EvaluationResult:
    from patchmill.training.evaluation.detect import evaluation  # loads torchvision

    return evaluation.evaluate(run, settings)


EVALUATIONS = {
    "knn": Evaluation(
        "nearest neighbours, beside an untrained network's",
        single_view.KNN,
        single_view.evaluate_knn,
    ),
    "linear": Evaluation(
        "a linear probe by a paper's protocol, on cached features",
        single_view.Linear,
        single_view.evaluate_linear,
    ),
    "online": Evaluation(
        "what training measures with kNN: a linear classifier, RankMe and spread",
        online.Online,
        online.evaluate_online,
    ),
    "patches": Evaluation(
        "means over 1, 16, 64, 256 patches, in h and z; neighbours of patches",
        patches.Settings,
        patches.evaluate,
    ),
    "finetune": Evaluation(
        "the whole network, fine-tuned on few labels, over several subsets",
        finetune.Settings,
        finetune.evaluate,
    ),
    "reliance": Evaluation(
        "accuracy with backgrounds swapped, and without any", reliance.Settings, reliance.evaluate
    ),
    "segment": Evaluation(
        "semantic segmentation: Semantic FPN, a linear probe or kNN, beside an untrained network's",
        SegmentSettings,
        _segment,
    ),
    "detect": Evaluation(
        "object detection and instance segmentation, beside an untrained backbone's",
        DetectSettings,
        _detect,
    ),
}
