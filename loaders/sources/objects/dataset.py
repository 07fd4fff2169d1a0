"""Any object with `__len__` and `__getitem__` as a source, item by item.

Items are read by many threads at the same time if the data set is known to be thread-safe: lists,
arrays, tensors, torchvision's data sets, and objects with `thread_safe = True`. Others are read by
one thread at a time; decoding and rendering stay parallel.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.shortage import shortage
from patchmill.loaders.sources.lists.labels import names_of
from patchmill.loaders.sources.numbered import NumberedSource
from patchmill.loaders.sources.objects import items

log = logging.getLogger("patchmill")

LABEL_ATTRIBUTES = ("targets", "labels", "_labels")
_SAMPLED = 16  # items hashed for the fingerprint
_TRIED = 8  # items that are read to check that one holds an image
_NO_LABEL = -(2**63)  # not read yet


class Items(NumberedSource):
    """The items of a data set: images, as pixels or encoded, and labels.

    Labels come from an attribute such as `targets`; without one, they are recorded as items are
    read, and `labels` reads all that are missing.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._count = _length(dataset)
        kind = type(dataset)
        self.name = f"{kind.__name__} of {self._count:,} items"
        if not self._count:
            raise MillError(f"the {kind.__name__} has no items")
        self._lock = None if _is_thread_safe(dataset) else threading.Lock()
        labelled = _check_items(self, dataset)
        known = _known_labels(dataset, self._count)
        self._labels, self._labels_known = known, known is not None or not labelled
        if not self._labels_known:
            self._labels = np.full(self._count, _NO_LABEL, np.int64)
        self._classes = _class_names(dataset)
        self.fingerprint = self._fingerprint(known)
        if getattr(dataset, "transform", None) is not None:
            log.warning(
                "%s applies its own transform to each image before the recipe: build it without "
                "one, unless this is intended",
                kind.__name__,
            )

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": self._lock is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock() if state["_lock"] else None}

    @property
    def labels(self) -> np.ndarray | None:  # type: ignore[override]
        """int64, one per item, or None; the first use may read every item."""
        return self._labels if self._labels_known else self.labels_of(np.arange(self._count))

    @property
    def classes(self) -> list[str]:
        """Names of the classes, or their numbers if the data set has no names."""
        if self._labels is None:
            return []
        if not self._classes:
            assert self.labels is not None
            self._classes = names_of(self.labels)
        return self._classes

    def labels_of(self, ids: np.ndarray) -> np.ndarray | None:
        if self._labels is None:
            return None
        if self._labels_known:
            return self._labels[ids]
        missing = ids[self._labels[ids] == _NO_LABEL]
        if len(missing) > 1:
            with track(f"reading the labels of {self.name}", len(missing)) as advance:
                for id in missing.tolist():
                    self._note_label(id)
                    advance(1)
        elif len(missing):
            self._note_label(int(missing[0]))
        self._labels_known = bool(len(missing)) and not (self._labels == _NO_LABEL).any()
        return self._labels[ids]

    def read(self, index: int) -> bytes:
        item = self._item(index)
        try:
            image = items.image_of(item)
        except items.NotAnImage as error:
            raise OSError(f"the item {error}") from None
        if self._labels is not None and self._labels[index] == _NO_LABEL:
            self._labels[index] = _label(item)
        return image

    def where(self, index: int) -> str:
        return f"item {index} of {self.name}"

    def _note_label(self, index: int) -> None:
        assert self._labels is not None
        try:
            self._labels[index] = _label(self._item(index))
        except OSError as error:
            if shortage(error):  # not the item's fault
                raise
            self._labels[index] = -1

    def _item(self, index: int) -> Any:
        """One item; OSError for anything that the data set raises, except if memory runs out."""
        try:
            with self._lock or contextlib.nullcontext():
                return self._dataset[index]
        except Exception as error:
            if isinstance(error, OSError) or shortage(error):
                raise
            raise OSError(f"the data set raised {type(error).__name__}: {_line(error)}") from error

    def _fingerprint(self, labels: np.ndarray | None) -> str:
        """Hash of class, length, labels and some of the images: equal in other processes."""
        kind = type(self._dataset)
        digest = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__} {self._count}".encode())
        digest.update(b"" if labels is None else labels.tobytes())
        for index in np.linspace(0, self._count - 1, min(_SAMPLED, self._count)).astype(np.int64):
            with contextlib.suppress(OSError):
                digest.update(hashlib.sha256(self.read(int(index))).digest())
        return digest.hexdigest()[:16]


def _check_items(source: Items, dataset: Any) -> bool:
    """True if items have labels; MillError if none of a few items holds an image."""
    kind, error = type(dataset).__name__, OSError("")
    for index in np.linspace(0, len(source) - 1, min(_TRIED, len(source))).astype(np.int64):
        try:
            item = source._item(int(index))
            items.image_of(item)
            return items.label_of(item) is not None
        except items.NotAnImage as problem:
            remedy = (
                "build it without its transform, since recipes start from pixels in 8 bits"
                if "float" in str(problem)
                else "items must hold a PIL image, a uint8 array [height, width, 3], a uint8 "
                "tensor [3, height, width] or encoded bytes, with or without a label"
            )
            raise MillError(f"item {index} of the {kind} {problem}: {remedy}") from None
        except OSError as problem:
            error = problem
    raise MillError(f"cannot read the items of the {kind}: {_line(error)}")


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError as error:  # torch's Dataset has no length by default
        raise MillError(f"the {type(dataset).__name__} has no length: {_line(error)}") from None


def _is_thread_safe(dataset: Any) -> bool:
    if hasattr(dataset, "thread_safe"):
        return bool(dataset.thread_safe)
    package = ".".join(type(dataset).__module__.split(".")[:2])
    return (
        isinstance(dataset, list | tuple | np.ndarray)
        or package == "torchvision.datasets"
        or (package.startswith("torch") and type(dataset).__name__ in ("Tensor", "TensorDataset"))
    )


def _known_labels(dataset: Any, count: int) -> np.ndarray | None:
    """The labels in an attribute of the data set; None without one that fits."""
    for name in LABEL_ATTRIBUTES:
        values: Any = getattr(dataset, name, None)
        if hasattr(values, "numpy"):
            values = values.numpy()
        if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str | bytes):
            continue
        if len(values) != count:
            continue
        try:
            array = np.asarray(values)
        except ValueError:  # labels of several lengths
            continue
        if array.ndim == 1 and array.dtype.kind in "iu":
            return None if (array == -1).all() else array.astype(np.int64)
    return None


def _class_names(dataset: Any) -> list[str]:
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
        return []
    return list(names)


def _label(item: Any) -> int:
    try:
        label = items.label_of(item)
    except items.NotAnImage:
        label = None
    return -1 if label is None else label


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
