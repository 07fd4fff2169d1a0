"""Digest of a loader's first batches, to compare the output of two commands."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchmill.loaders.loader import Loader

BATCHES = 4
_DIGITS = 12


@dataclass(frozen=True)
class Digest:
    """Hashes of the ids, in order, and of the float32 views of an epoch's first batches."""

    batches: int
    batch_size: int
    ids: str
    views: str

    def __str__(self) -> str:
        return f"ids {self.ids}, views {self.views} ({self.batches} batches of {self.batch_size})"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def first_batches(loader: Loader, count: int = BATCHES) -> Digest:
    """Digest the first `count` batches; closes the loader."""
    ids, views, batches, size = hashlib.blake2b(), hashlib.blake2b(), 0, 0
    for batch in itertools.islice(loader, count):
        batches, size = batches + 1, len(batch)
        ids.update(batch.ids.numpy().data)
        for group in batch.views.values():
            for view in group.unbind(1):
                views.update(view.contiguous().cpu().numpy().data)
    loader.close()
    return Digest(batches, size, ids.hexdigest()[:_DIGITS], views.hexdigest()[:_DIGITS])
