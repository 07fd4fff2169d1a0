"""A stream as pipelines want it: a source that knows the samples which are under way just now."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchmill.loaders.copypaste.backgrounds import CANDIDATES
from patchmill.loaders.order import permutation
from patchmill.loaders.sources.stream.stream import Stream, StreamSample

# Draws of candidates for a background come after those of substitutes.
_BACKGROUND_ATTEMPTS = permutation.MOST_SUBSTITUTES


@dataclass
class _Held:
    sample: StreamSample
    company: dict[int, np.ndarray]  # ids of its batch, by epoch: where a round through the shards
    times: int = 1  # meets the next, it may be in two batches


class StreamSource:
    """Holds the samples of the batches in the making; a bad one is replaced by one beside it."""

    labels = None  # unknown as a whole: see `labels_of`
    masked = True  # as far as anybody knows
    sample_count = None

    def __init__(self, stream: Stream) -> None:
        self.stream, self.name, self.fingerprint = stream, stream.name, stream.fingerprint
        self.classes: list[str] = []
        self._held: dict[int, _Held] = {}
        self._lock = threading.Lock()

    def hold(self, batch: Sequence[StreamSample], epoch: int) -> np.ndarray:
        """Keep these samples, of a batch for that epoch, until they are released; their ids."""
        ids = np.array([sample.id for sample in batch], np.int64)
        with self._lock:
            for sample in batch:
                if held := self._held.get(sample.id):
                    held.times, held.company[epoch] = held.times + 1, ids
                else:
                    self._held[sample.id] = _Held(sample, {epoch: ids})
        return ids

    def release(self, wanted: np.ndarray) -> None:
        """The batch of these ids is made."""
        with self._lock:
            for id in wanted.tolist():
                if held := self._held.get(id):
                    held.times -= 1
                    if not held.times:
                        del self._held[id]

    def clear(self) -> None:
        with self._lock:
            self._held.clear()

    def read(self, index: int) -> bytes:
        return self._held[index].sample.data

    def mask(self, index: int) -> np.ndarray | None:
        """uint8 [height, width] of a sample that is held; None where it has none."""
        from patchmill.loaders.copypaste.mask_png import decode_mask

        data = self._held[index].sample.mask
        return (
            None if data is None else decode_mask(data, lambda: f"the mask of {self.where(index)}")
        )

    def where(self, index: int) -> str:
        return self.stream.where(self._held[index].sample)

    def substitute(self, seed: int, epoch: int, id: int, attempt: int) -> int:
        """Another sample of the same batch, the same one after a resume."""
        company = self._held[id].company[epoch]
        return int(company[permutation.substitute(seed, epoch, id, attempt, len(company))])

    def background_candidates(self, seed: int, epoch: int, id: int) -> list[int]:
        """Samples of the same batch of which one may become the background of sample `id`."""
        attempts = range(_BACKGROUND_ATTEMPTS, _BACKGROUND_ATTEMPTS + CANDIDATES)
        return [self.substitute(seed, epoch, id, attempt) for attempt in attempts]

    def labels_of(self, ids: np.ndarray) -> np.ndarray | None:
        """Of samples that are held; None where they have none."""
        labels = [self._held[id].sample.label for id in ids.tolist()]
        return None if None in labels else np.array(labels, np.int64)
