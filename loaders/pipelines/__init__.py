"""How images move from source through decoder and renderer into batches.

A pipeline is built once; each iteration over a loader is one of its runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from patchmill.loaders.stats import Stage

if TYPE_CHECKING:
    import torch


Portion = tuple[int, np.ndarray]  # the epoch that plans are drawn for, and a batch's ids


@dataclass(frozen=True, eq=False)
class Filled:
    """A batch's memory with all views in it, ready for the current stream."""

    ids: np.ndarray  # [B] int64: the samples really in the batch
    flat: torch.Tensor  # as `kernels.views.layout` has it
    labels: torch.Tensor | None
    rows: np.ndarray  # [B, V]: every decision that made the views
    shapes: np.ndarray  # [B, 2] int32: height and width of each image


class Run(Protocol):
    """One iteration under way. Whichever way it ends, it is dismissed."""

    @property
    def seconds(self) -> float:
        """How long it has been, or was, at work."""
        ...

    def next(self) -> Filled | None:
        """The next batch; None after the last."""
        ...

    def check(self) -> None:
        """A MillError where the run cannot go on: it was dismissed, or the process forked."""
        ...

    def dismiss(self) -> None:
        """End its threads; what is not begun is dropped."""
        ...


class Pipeline(Protocol):
    name: str

    def run(self, portions: Iterator[Portion]) -> Run:
        """Begin an iteration over these batches, in this order."""
        ...

    def stages(self, seconds: float) -> dict[str, Stage]:
        """What all runs did together, in so many seconds."""
        ...

    def unmasked(self) -> int:
        """How often a sample was to be pasted and had no usable mask."""
        ...

    def clear(self) -> None:
        """Let go of memory that is kept for batches."""
        ...
