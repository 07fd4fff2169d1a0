"""What evaluate.py knows to do: a settings class and a function for each evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from patchmill.training.evaluation import patches, reliance, whole
from patchmill.training.evaluation.findings import Findings


class Evaluation(NamedTuple):
    title: str
    settings: type
    evaluate: Callable[[Any, Any], Findings]


EVALUATIONS = {
    "knn": Evaluation(
        "nearest neighbours, beside an untrained network's", whole.KNN, whole.evaluate_knn
    ),
    "linear": Evaluation(
        "a linear probe by a paper's protocol, on cached features",
        whole.Linear,
        whole.evaluate_linear,
    ),
    "patches": Evaluation(
        "means over 1, 16, 64, 256 patches, in h and z; neighbours of patches",
        patches.Settings,
        patches.evaluate,
    ),
    "reliance": Evaluation(
        "accuracy with backgrounds swapped, and without any", reliance.Settings, reliance.evaluate
    ),
}
