"""Summary of one shard's index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchmill.loaders.files.columns import Columns

Load = Callable[[str], np.ndarray]  # reads a column by name


@dataclass(frozen=True)
class ShardSummary:
    """Summary of a shard's index; columns are read one at a time: shards may number thousands."""

    path: str
    meta: dict[str, Any]
    count: int  # samples
    columns: frozenset[str]  # names of the columns it has
    labels: tuple[int, int]  # smallest and largest
    load: Load


def summarise(path: str, index: Columns, load: Load) -> ShardSummary:
    count = len(index["offsets"])
    labels = index["labels"] if count and "labels" in index.columns else np.zeros(1, np.int64)
    extremes = int(labels.min()), int(labels.max())
    return ShardSummary(path, index.meta, count, frozenset(index.columns), extremes, load)
