"""The accuracy that ends a run before its last epoch: evaluate.stop_at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchmill.training.config.settings import Evaluate

TITLES = {"knn": "kNN", "linear_online": "the linear classifier on h"}


def reached(settings: Evaluate, scores: Mapping[str, float]) -> bool:
    """True if an evaluation's scores reach evaluate.stop_at."""
    return settings.stop_at is not None and scores.get(settings.stop_metric, -1) >= settings.stop_at


def sentence(settings: Evaluate, epoch: int, epochs: int) -> str:
    """`kNN has reached evaluate.stop_at=0.6: the run ends after epoch 5 of 40`."""
    return (
        f"{TITLES[settings.stop_metric]} has reached evaluate.stop_at={settings.stop_at:g}: "
        f"the run ends after epoch {epoch:,} of {epochs:,}"
    )
