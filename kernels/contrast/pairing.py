"""`Pairing`: which keys are a query's positives, and which ones its softmax excludes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

QUEUE = "queue"  # softmax over a query's own positive and the queue
BATCH = "batch"  # over all batch keys and the queue
VIEWS = "views"  # over all batch keys except the query itself; there is no queue


@dataclass(frozen=True)
class Pairing:
    """Queries are [views, local] images, flattened, and batch keys [views, total], flattened.

    Image b of the queries is image `offset` + b of the batch keys. The positives of a query are the
    batch keys that show its image; for VIEWS without that of its own view, the query itself.
    """

    kind: str
    views: int
    local: int
    total: int
    offset: int

    @property
    def n_queries(self) -> int:
        return self.views * self.local

    @property
    def excludes_self(self) -> bool:
        return self.kind == VIEWS

    @property
    def n_positives(self) -> int:
        """Positives of each query."""
        return self.views - self.excludes_self

    def self_blocks(self, queries: slice, batch_keys: slice) -> Iterator[tuple[slice, slice]]:
        """Sub-blocks of a block of logits whose diagonals pair queries with themselves."""
        for view in range(queries.start // self.local, -(-queries.stop // self.local)):
            shift = view * (self.total - self.local) + self.offset  # batch-key row - query row
            first = max(queries.start, view * self.local, batch_keys.start - shift)
            last = min(queries.stop, (view + 1) * self.local, batch_keys.stop - shift)
            if first < last:
                yield (
                    slice(first - queries.start, last - queries.start),
                    slice(first + shift - batch_keys.start, last + shift - batch_keys.start),
                )

    def mean_positives(self, batch_keys: torch.Tensor) -> torch.Tensor:
        """[queries, d] float32: the mean of each query's positives."""
        by_view = batch_keys.view(self.views, self.total, -1)
        by_view = by_view[:, self.offset : self.offset + self.local].float()
        return self._mean_other_views(by_view).flatten(0, 1)

    def subtract_positives(
        self, grad_keys: torch.Tensor, queries: torch.Tensor, weight: float
    ) -> None:
        """Subtract from a batch key's gradient, [batch keys, d], the queries it is a positive of.

        Each query has weight `weight` / n_positives.
        """
        grad = grad_keys.view(self.views, self.total, -1)
        grad = grad[:, self.offset : self.offset + self.local]
        grad.sub_(self._mean_other_views(queries.view(self.views, self.local, -1)), alpha=weight)

    def _mean_other_views(self, rows: torch.Tensor) -> torch.Tensor:
        """Mean over the other views of [views, local, d]; `rows` if self is a positive."""
        if not self.excludes_self:
            return rows
        return (rows.sum(0) - rows).div_(self.n_positives)
