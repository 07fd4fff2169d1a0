"""A short name for what a loader gives first, so that two commands can be seen to give the same."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchmill.loaders.loader import Loader

STEPS = 4
_DIGITS = 12


@dataclass(frozen=True)
class Digest:
    """Of the first batches of an epoch, in float32: equal ids in equal order, and equal views."""

    batches: int
    batch_size: int
    ids: str
    views: str

    def __str__(self) -> str:
        many = f"{self.batches} batches of {self.batch_size}"
        return f"ids {self.ids}, views {self.views} ({many})"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def of(loader: Loader, steps: int = STEPS) -> Digest:
    """Ends the loader's iteration."""
    ids, views, batches, size = hashlib.blake2b(), hashlib.blake2b(), 0, 0
    for batch in itertools.islice(loader, steps):
        batches, size = batches + 1, len(batch)
        ids.update(batch.ids.numpy().data)
        for group in batch.views.values():
            for view in group.unbind(1):
                views.update(view.contiguous().cpu().numpy().data)
    loader.close()
    return Digest(batches, size, ids.hexdigest()[:_DIGITS], views.hexdigest()[:_DIGITS])
