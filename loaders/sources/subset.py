"""A subset of another source's samples, renumbered from 0."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded.images import DecodedImages
from patchmill.loaders.sources.numbered import NumberedSource

if TYPE_CHECKING:
    from patchmill.loaders.sources import Source


class Subset(NumberedSource):
    """Samples `ids` of a source, in that order and without masks.

    An unreadable sample is replaced by another of the subset.
    """

    def __init__(self, source: Source, ids: Sequence[int] | np.ndarray) -> None:
        chosen = np.asarray(ids, np.int64)
        outside = chosen[(chosen < 0) | (chosen >= len(source))]
        if len(outside):
            raise MillError(
                f"there is no sample {outside[0]} in {source.name}: its {len(source)} samples are "
                "numbered from 0"
            )
        self._source, self.ids = source, chosen
        self.name = f"{len(chosen)} of the {len(source)} samples of {source.name}"
        digest = hashlib.sha256(source.fingerprint.encode() + b"\0" + chosen.tobytes())
        self.fingerprint = digest.hexdigest()[:16]
        self.classes = source.classes
        self.labels = source.labels_of(chosen)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> bytes:
        return self._source.read(int(self.ids[index]))

    def stamp(self, index: int) -> int | None:
        return self._source.stamp(int(self.ids[index]))

    def read_many(self, ids: np.ndarray, memory: np.ndarray) -> list[bytes | None]:
        return self._source.read_many(self.ids[ids], memory)

    def read_into(self, ids: np.ndarray, memory: np.ndarray) -> np.ndarray | None:
        return self._source.read_into(self.ids[ids], memory)

    def where(self, index: int) -> str:
        return self._source.where(int(self.ids[index]))

    def prefetch(self, ids: np.ndarray) -> None:
        self._source.prefetch(self.ids[ids])

    def decoded_images(self) -> DecodedImages | None:
        return None if self._source.decoded_images() is None else self._raw_images

    @functools.cached_property
    def _raw_images(self) -> DecodedImages | None:
        images = self._source.decoded_images()
        return None if images is None else DecodedImages(images.pixels, images.places[self.ids])
