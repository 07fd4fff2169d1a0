"""Data sets of Hugging Face's `datasets`, read as encoded bytes, without decoding them there."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.lists.labels import names_of
from patchmill.loaders.sources.names import IMAGE_NAMES, LABEL_NAMES
from patchmill.loaders.sources.objects.dataset import Items


def open_dataset(data: Any) -> Items:
    """The images of a `datasets.Dataset`; formats and transforms set on it are ignored."""
    plain = data.with_format(None)
    kinds = {name: type(feature).__name__ for name, feature in plain.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    image = next((name for name in (*IMAGE_NAMES, *images) if name in images), None)
    if image is None:
        image = next((name for name in IMAGE_NAMES if name in kinds), None)
    if image is None:
        listed = ", ".join(list(kinds)[:6])
        raise MillError(f"the Dataset has no column of images; its columns are: {listed}")
    if kinds[image] == "Image":
        feature = type(plain.features[image])
        plain = plain.cast_column(image, feature(decode=False))
    return Rows(plain, image, _label_column(kinds))


class Rows(Items):
    """The rows of a `datasets.Dataset`."""

    def __init__(self, data: Any, image: str, label: str | None) -> None:
        super().__init__(_Column(data.select_columns([image]), image, *_labels(data, label)))
        self.name = f"Dataset of {len(data):,} rows"

    def where(self, index: int) -> str:
        return f"row {index} of {self.name}"


class _Column:
    """One column of a data set, with the labels of its rows."""

    thread_safe = False

    def __init__(
        self, data: Any, name: str, targets: np.ndarray | None, classes: list[str]
    ) -> None:
        self._data, self._name, self.targets, self.classes = data, name, targets, classes

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Any:
        return self._data[index][self._name]


def _label_column(kinds: dict[str, str]) -> str | None:
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    preferred = [name for name in LABEL_NAMES if name in (labels or kinds)]
    return next(iter(preferred or labels), None)


def _labels(data: Any, name: str | None) -> tuple[np.ndarray | None, list[str]]:
    if name is None or not len(data):
        return None, []
    column = data.select_columns([name]).with_format("numpy")[:][name]
    values = np.asarray(column)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        return None, []
    classes = getattr(data.features[name], "names", None) or names_of(values.astype(np.int64))
    return values.astype(np.int64), list(classes)
