"""Batches of training views, made in threads; for a seed the same with any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from patchmill.loaders.common.threads import map_ahead
from patchmill.loaders.order.permutation import Order
from patchmill.training.evaluation.segment.budget import Budget
from patchmill.training.evaluation.segment.labelled import Labelled, Sample
from patchmill.training.evaluation.segment.views import training_view

AHEAD = 2  # batches


class Batch(NamedTuple):
    images: torch.Tensor  # uint8 [B, 3, H, W]
    masks: torch.Tensor  # uint8 [B, H, W]


def training_batches(data: Labelled, budget: Budget, seed: int, threads: int) -> Iterator[Batch]:
    """Yield `budget.iterations` batches: every epoch covers all images, in a new order."""
    order = Order(len(data), seed)

    def view(position: int) -> Sample:
        epoch, at = divmod(position, len(data))
        sample = data.read(int(order.ids(epoch, at, at + 1)[0]))
        draws = np.random.default_rng([seed, position])
        return training_view(sample, budget.size, budget.photometric, draws)

    positions = range(budget.iterations * budget.batch)
    views = map_ahead(view, positions, threads, AHEAD * budget.batch)
    try:
        while samples := list(islice(views, budget.batch)):
            images, masks = zip(*samples, strict=True)
            yield Batch(torch.stack(images), torch.stack(masks))
    finally:
        views.close()
