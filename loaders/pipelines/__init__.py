"""Pipelines: from sample ids to batches of rendered views. README.md shows the life of a batch.

A pipeline is built once per loader; each iteration over the loader is one `Run` of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from patchmill.loaders.decoded.cache_stats import CacheStats
from patchmill.loaders.stats import Stage

if TYPE_CHECKING:
    import torch


BatchIds = tuple[int, np.ndarray]  # the epoch that decisions are drawn for, and the sample ids


@dataclass(frozen=True, eq=False)
class FilledBatch:
    """One batch of rendered views in flat memory, ready for the current stream."""

    ids: np.ndarray  # [B] int64: the samples in the batch, after substitutions
    flat: torch.Tensor  # all views, in the order of `kernels.views.layout`
    labels: torch.Tensor | None
    rows: np.ndarray  # [B, V]: decision rows of all views
    shapes: np.ndarray  # [B, 2] int32: height and width of each image


class Run(Protocol):
    """One iteration over the batches. However it ends, it must be dismissed."""

    @property
    def seconds(self) -> float:
        """Seconds from the start until now, or until it was dismissed."""
        ...

    def next(self) -> FilledBatch | None:
        """Wait for the next batch; None after the last."""
        ...

    def check(self) -> None:
        """Raise MillError if the run cannot continue: it was dismissed, or the process forked."""
        ...

    def dismiss(self) -> None:
        """Stop the threads and drop unfinished batches."""
        ...


class Pipeline(Protocol):
    """A way to make batches; `StagedPipeline` in base.py is their common base class."""

    name: str

    def run(self, batches: Iterator[BatchIds]) -> Run:
        """Start an iteration over these batches, in this order."""
        ...

    def stages(self, seconds: float) -> dict[str, Stage]:
        """Items and busy time of every stage over all runs, which took `seconds` together."""
        ...

    @property
    def workers(self) -> int:
        """Current number of workers."""
        ...

    @property
    def prefetch(self) -> int:
        """Current number of batches made ahead."""
        ...

    def idle(self) -> float:
        """Share of the workers' time without a task, over all runs."""
        ...

    def unmasked(self) -> int:
        """Number of samples that should have been pasted but had no usable mask."""
        ...

    def cache(self) -> CacheStats | None:
        """Statistics of the decoded cache; None if there is none."""
        ...

    def clear(self) -> None:
        """Free the memory pooled for batches."""
        ...
