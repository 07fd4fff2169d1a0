"""Adapt a stream to pipelines: a source that holds the samples of the batches being made."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchmill.loaders.copypaste.backgrounds import CANDIDATES
from patchmill.loaders.order import permutation
from patchmill.loaders.sources.reopened import Reopened
from patchmill.loaders.sources.stream.stream import Stream, StreamSample

# Background candidates use the draws after those of substitutes.
_BACKGROUND_ATTEMPTS = permutation.MOST_SUBSTITUTES


@dataclass
class _HeldSample:
    sample: StreamSample
    batch_ids: dict[int, np.ndarray]  # by epoch: where epochs meet, it can be in two batches
    references: int = 1


class StreamSource(Reopened):
    """Access by id to the samples of the batches being made; bad ones are replaced in their batch.

    `hold` adds a batch's samples, `release` drops them once the batch is made.
    """

    labels = None  # samples are not numbered in advance; see `labels_of`
    masked = True  # unknown until a sample is read
    sample_count = None

    def __init__(self, stream: Stream) -> None:
        self.stream, self.name, self.fingerprint = stream, stream.name, stream.fingerprint
        self.classes: list[str] = []
        self._held: dict[int, _HeldSample] = {}
        self._lock = threading.Lock()

    def hold(self, batch: Sequence[StreamSample], epoch: int) -> np.ndarray:
        """Hold the samples of a batch of this epoch until they are released; return their ids."""
        ids = np.array([sample.id for sample in batch], np.int64)
        with self._lock:
            for sample in batch:
                if held := self._held.get(sample.id):
                    held.references, held.batch_ids[epoch] = held.references + 1, ids
                else:
                    self._held[sample.id] = _HeldSample(sample, {epoch: ids})
        return ids

    def release(self, ids: np.ndarray) -> None:
        """Drop the samples of a finished batch."""
        with self._lock:
            for id in ids.tolist():
                if held := self._held.get(id):
                    held.references -= 1
                    if not held.references:
                        del self._held[id]

    def clear(self) -> None:
        with self._lock:
            self._held.clear()

    def read_many(self, ids: np.ndarray, memory: np.ndarray) -> list[bytes | None]:
        """None for each: samples are in memory already."""
        return [None] * len(ids)

    def read_into(self, ids: np.ndarray, memory: np.ndarray) -> None:
        """None: samples are in memory already."""
        return None

    def read(self, index: int) -> bytes:
        return self._held[index].sample.data

    def mask(self, index: int) -> np.ndarray | None:
        """The mask of a held sample as uint8 [height, width]; None if it has none."""
        from patchmill.loaders.copypaste.mask_png import decode_mask

        data = self._held[index].sample.mask
        if data is None:
            return None
        return decode_mask(data, lambda: f"the mask of {self.where(index)}")

    def where(self, index: int) -> str:
        return self.stream.where(self._held[index].sample)

    def decoded_images(self) -> None:
        """None: streamed images are encoded."""

    def substitute(self, seed: int, epoch: int, id: int, attempt: int) -> int:
        """Another sample of the same batch in place of a bad one; the same after a resume."""
        ids = self._held[id].batch_ids[epoch]
        return int(ids[permutation.substitute(seed, epoch, id, attempt, len(ids))])

    def background_candidates(self, seed: int, epoch: int, id: int) -> list[int]:
        """Candidates for the background of sample `id`, from the same batch."""
        attempts = range(_BACKGROUND_ATTEMPTS, _BACKGROUND_ATTEMPTS + CANDIDATES)
        return [self.substitute(seed, epoch, id, attempt) for attempt in attempts]

    def labels_of(self, ids: np.ndarray) -> np.ndarray | None:
        """int64 labels of held samples; None if any of them has none."""
        labels = [self._held[id].sample.label for id in ids.tolist()]
        return None if None in labels else np.array(labels, np.int64)
