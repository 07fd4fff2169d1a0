"""Optimiser settings of papers, for tests."""

from __future__ import annotations

from typing import Any

from patchmill.training.config.settings import Optim

LIKE: dict[str, dict[str, Any]] = {
    "moco_v1": dict(
        name="sgd", lr=0.03, scaled=False, momentum=0.9, weight_decay=1e-4, exclude=False,
        schedule="steps", milestones=[120, 160], gamma=0.1, warmup=0,
    ),
    "moco_v2": dict(
        name="sgd", lr=0.03, scaled=False, momentum=0.9, weight_decay=1e-4, exclude=False,
        schedule="cosine", per_epoch=True, warmup=0, final=0,
    ),
    "vicreg": dict(
        name="lars", lars="vicreg", eta=0.001, lr=0.2, scaled=True, momentum=0.9,
        weight_decay=1e-6, exclude=True, schedule="cosine", warmup=10, final=0.001,
    ),
    "emp_ssl": dict(
        name="lars", lars="wrapper", eta=0.005, lars_clip=True, nesterov=True, lr=0.3, scaled=False,
        momentum=0.9, weight_decay=1e-4, exclude=True, schedule="cosine", warmup=0, final=0,
    ),
    "gtsa": dict(
        name="adamw", lr=5e-4, scaled=True, weight_decay=0.04, weight_decay_end=0.4, exclude=True,
        schedule="cosine", warmup=10, final=2e-3,
    ),
}  # fmt: skip


def like(paper: str, **changes: Any) -> Optim:
    return Optim(**(LIKE[paper] | changes))
