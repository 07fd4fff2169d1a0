"""Weighted k-nearest-neighbour classification, as Wu et al. (1805.01978) and those after them do.

Cosine similarity, the k nearest of the bank, each voting for its class with exp(similarity / T).
Figures of different k or T, of h or z, or of other numbers of patches do not compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize, one_hot

from patchmill.training.evaluation.features import Features, extract

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config
    from patchmill.training.methods import Method
    from patchmill.training.ranks.distributed import World

SIMILARITIES = 2**25  # numbers that are in memory at a time
VOTES = 2**24


def online(method: Method, config: Config, world: World) -> dict[str, float]:
    """Top-1 accuracy of the backbone's h as it is now, of `data.test` by the training images.

    The same on all ranks; leaves the networks, the generators and the training loader as they were.
    """
    from patchmill.training import data

    bank = data.open_evaluation(config, world, "train")
    tests = data.open_evaluation(config, world, "test")
    most = config.evaluate.images
    return {
        "knn": accuracy(
            extract(method.backbone, bank, most),
            extract(method.backbone, tests),
            config.evaluate.k,
            config.evaluate.temperature,
        )
    }


def accuracy(bank: Features, tests: Features, k: int, temperature: float) -> float:
    """The share of `tests` whose class the bank tells."""
    classes = int(torch.maximum(bank.labels.max(), tests.labels.max())) + 1
    found = classify(bank.rows, bank.labels, tests.rows, k, temperature, classes)
    return (found == tests.labels).double().mean().item()


def classify(
    bank: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    k: int,
    temperature: float,
    classes: int,
    chunk: int | None = None,
) -> torch.Tensor:
    """The class of each query: bank [N, d] with labels [N], queries [Q, d]; int64 [Q].

    Works on `chunk` queries at a time, by default as many as keep memory bounded; no choice of it
    changes a result. Where the bank has fewer than k, all of it votes.
    """
    bank, k = normalize(bank.float(), dim=1), min(k, len(bank))
    chunk = chunk or max(1, min(SIMILARITIES // len(bank), VOTES // (k * classes)))
    found = []
    for part in normalize(queries.float(), dim=1).split(chunk):
        similarity, nearest = (part @ bank.T).topk(k)
        votes = (similarity / temperature).exp()[..., None] * one_hot(labels[nearest], classes)
        found.append(votes.sum(1).argmax(1))
    return torch.cat(found)
