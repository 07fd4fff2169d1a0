"""Weighted k-nearest-neighbour classification (Wu et al., arXiv 1805.01978).

Cosine similarity; the k nearest images of the bank vote for their class with exp(similarity / T).
Accuracies are comparable only for the same k, T, space (h or z) and number of patches.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import normalize, one_hot

from patchmill.training.evaluation.features import Features

MAX_SIMILARITIES = 2**25  # elements in memory at a time
MAX_VOTES = 2**24


def accuracy(bank: Features, tests: Features, k: int, temperature: float) -> float:
    """Return the top-1 accuracy on `tests`."""
    classes = int(torch.maximum(bank.labels.max(), tests.labels.max())) + 1
    predicted = classify(bank.rows, bank.labels, tests.rows, k, temperature, classes)
    return (predicted == tests.labels).double().mean().item()


def classify(
    bank: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    k: int,
    temperature: float,
    classes: int,
    chunk: int | None = None,
) -> torch.Tensor:
    """Classify queries [Q, d], giving int64 [Q], from bank [N, d] with labels [N].

    `chunk` queries are classified at a time, by default as many as keep memory bounded; results do
    not depend on it. With fewer than k rows, the whole bank votes.
    """
    parts = votes(bank, labels, queries, k, temperature, classes, chunk)
    return torch.cat([part.argmax(1) for part in parts])


def votes(
    bank: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    k: int,
    temperature: float,
    classes: int,
    chunk: int | None = None,
) -> Iterator[torch.Tensor]:
    """Yield the k nearest rows' votes per class, float32 [chunk, classes] each; see `classify`."""
    bank, k = normalize(bank.float(), dim=1), min(k, len(bank))
    chunk = chunk or max(1, min(MAX_SIMILARITIES // len(bank), MAX_VOTES // (k * classes)))
    for part in normalize(queries.float(), dim=1).split(chunk):
        similarity, nearest = (part @ bank.T).topk(k)
        weights = (similarity / temperature).exp()[..., None]
        yield (weights * one_hot(labels[nearest], classes)).sum(1)
