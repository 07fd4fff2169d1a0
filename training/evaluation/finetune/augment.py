"""Batch augmentation with timm: mixup, cutmix and random erasing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from patchmill.training.evaluation.finetune.protocols import Protocol

Batch = tuple[torch.Tensor, torch.Tensor]  # views; labels [N], or soft labels [N, classes]


def build(protocol: Protocol, classes: int, device: torch.device) -> Callable[..., Batch]:
    """Build a function that augments views and labels; it may change the views in place.

    It draws from the generators of random, numpy and torch.
    """
    from timm.data import Mixup
    from timm.data.random_erasing import RandomErasing

    erase = RandomErasing(protocol.erase, mode="pixel", device=str(device))
    mix = Mixup(
        mixup_alpha=protocol.mixup,
        cutmix_alpha=protocol.cutmix,
        label_smoothing=protocol.smoothing,
        num_classes=classes,
    )

    def augment(views: torch.Tensor, labels: torch.Tensor) -> Batch:
        if protocol.erase:
            views = erase(views)
        return mix(views, labels) if protocol.mixes else (views, labels)

    return augment


@contextmanager
def seeded(seed: int, rank: int) -> Iterator[None]:
    """Seed the generators of random and numpy for a rank; restore them afterwards."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002  (timm draws from it)
    random.seed(f"{seed} {rank}")
    np.random.seed((seed * 1_000_003 + rank) % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
