"""Summary of one shard's index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchmill.loaders.common.columns import Columns


@dataclass(frozen=True)
class ShardSummary:
    """Summary of a shard's index, which is mapped only while it is read: there may be thousands."""

    path: str
    meta: dict[str, Any]
    count: int  # samples
    columns: frozenset[str]  # names of the columns it has
    labels: tuple[int, int]  # smallest and largest
    load: Callable[[], Columns]


def summarise(path: str, load: Callable[[], Columns]) -> ShardSummary:
    index = load()
    labels = index.columns.get("labels", np.zeros(1, np.int64))
    extremes = int(labels.min()), int(labels.max())
    count = len(index["offsets"])
    return ShardSummary(path, index.meta, count, frozenset(index.columns), extremes, load)
