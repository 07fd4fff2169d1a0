"""Defaults shared by all sources of numbered samples, and an adapter for custom sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from patchmill.loaders.decoded.images import DecodedImages
    from patchmill.loaders.sources import SimpleSource


class NumberedSource:
    """Base class of sources whose samples are numbered from 0 to `len(source) - 1`."""

    labels: np.ndarray | None
    masked = False  # True if samples come with masks

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def sample_count(self) -> int:
        return len(self)

    def prefetch(self, ids: np.ndarray) -> None:
        """Announce samples that will be read soon; does not wait."""

    def stamp(self, index: int) -> int | None:
        """A number that changes with the sample's bytes; None if only these can show a change."""
        return None

    def read_many(self, ids: np.ndarray, memory: np.ndarray) -> list[bytes | None]:
        """Encoded bytes of small samples; None for those left to `read`: here, all of them."""
        return [None] * len(ids)

    def read_into(self, ids: np.ndarray, memory: np.ndarray) -> np.ndarray | None:
        """Read samples into `memory` and return their spans; here None: not supported."""
        return None

    def labels_of(self, ids: np.ndarray) -> np.ndarray | None:
        """int64 labels of these samples; None for a source without labels."""
        return None if self.labels is None else np.asarray(self.labels[ids], np.int64)

    def decoded_images(self) -> DecodedImages | None:
        """Images that the source holds decoded (always the same ones); None if it holds none."""
        return None

    def substitute(self, seed: int, epoch: int, id: int, attempt: int) -> int:
        """The sample to read in place of an unreadable one; the same after a resume."""
        from patchmill.loaders.order import permutation

        return permutation.substitute(seed, epoch, id, attempt, len(self))

    def background_candidates(self, seed: int, epoch: int, id: int) -> list[int]:
        """Candidates for the background of sample `id`."""
        from patchmill.loaders.copypaste import backgrounds

        return backgrounds.candidates(seed, epoch, id, len(self))


_OPTIONAL = (
    "prefetch",
    "read_many",
    "read_into",
    "masked",
    "stamp",
    "labels_of",
    "decoded_images",
    "substitute",
    "background_candidates",
)


def _checked_labels(source: SimpleSource) -> np.ndarray | None:
    """The labels of a custom source as int64, one for each sample."""
    if source.labels is None:
        return None
    labels = np.asarray(source.labels)
    if labels.dtype.kind not in "iu" or labels.shape != (len(source),):
        raise MillError(
            f"labels of the source {type(source).__name__} must be None or {len(source):,} whole "
            f"numbers, one for each sample, not {labels.dtype} of shape {labels.shape}; "
            "to number class names, use numpy.unique(names, return_inverse=True)"
        )
    return labels.astype(np.int64, copy=False)


def _is_encoded(data: Any) -> bool:
    try:
        view = memoryview(data)
    except TypeError:
        return False
    return view.ndim == 1 and view.itemsize == 1


class AdaptedSource(NumberedSource):
    """Wraps a custom source and adds the members of `Source` that it lacks."""

    name: str
    fingerprint: str
    classes: list[str]

    def __init__(self, source: SimpleSource) -> None:
        self._source = source
        self.where = source.where
        self.labels = _checked_labels(source)
        for name in _OPTIONAL:
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of one sample; MillError if the source returns anything else."""
        data = self._source.read(index)
        if not _is_encoded(data):
            raise MillError(
                f"read of the source {type(self._source).__name__} must return encoded bytes, as "
                f"in an image file, not a {type(data).__name__}; for decoded images, give a data "
                "set with __len__ and __getitem__"
            )
        return data

    def __getattr__(self, name: str) -> Any:
        if name == "_source":  # not set yet, while unpickling or copying
            raise AttributeError(name)
        return getattr(self._source, name)
