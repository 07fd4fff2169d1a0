"""`Pairing`: which keys are whose positives, and which are left out of whose denominators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

QUEUE = "queue"  # denominators over a query's own companion and the queue
BATCH = "batch"  # over all companions and the queue
VIEWS = "views"  # over all companions but the query itself; there is no queue


@dataclass(frozen=True)
class Pairing:
    """Queries are `views` x `local` images, flattened, and companions `views` x `total`.

    Image b of the queries is image `offset` + b of the companions. Positives of a query are the
    companions that show its image; for VIEWS all of them but the one of its own view, which is
    the query itself.
    """

    kind: str
    views: int
    local: int
    total: int
    offset: int

    @property
    def queries(self) -> int:
        return self.views * self.local

    @property
    def alone(self) -> bool:
        return self.kind == VIEWS

    @property
    def positives(self) -> int:
        """How many each query has."""
        return self.views - self.alone

    def diagonals(self, queries: slice, companions: slice) -> Iterator[tuple[slice, slice]]:
        """Within a block of logits, the squares on whose diagonals queries meet themselves."""
        for view in range(queries.start // self.local, -(-queries.stop // self.local)):
            ahead = view * (self.total - self.local) + self.offset  # of its number as a query
            first = max(queries.start, view * self.local, companions.start - ahead)
            last = min(queries.stop, (view + 1) * self.local, companions.stop - ahead)
            if first < last:
                yield (
                    slice(first - queries.start, last - queries.start),
                    slice(first + ahead - companions.start, last + ahead - companions.start),
                )

    def targets(self, companions: torch.Tensor) -> torch.Tensor:
        """[queries, d]: the mean of each query's positives."""
        shown = companions.view(self.views, self.total, -1)
        shown = shown[:, self.offset : self.offset + self.local].float()
        return self._others(shown).flatten(0, 1)

    def subtract_pull(self, out: torch.Tensor, queries: torch.Tensor, weight: float) -> None:
        """From companions, [companions, d], the share of each query whose positive they are."""
        place = out.view(self.views, self.total, -1)[:, self.offset : self.offset + self.local]
        place.sub_(self._others(queries.view(self.views, self.local, -1)), alpha=weight)

    def _others(self, shown: torch.Tensor) -> torch.Tensor:
        if not self.alone:
            return shown
        return (shown.sum(0) - shown).div_(self.positives)
