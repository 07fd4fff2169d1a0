"""What a sheet is made of: which samples, with their names and images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchmill.loaders.decode import BadImage, decode
from patchmill.loaders.errors import MillError
from patchmill.loaders.order import Order
from patchmill.loaders.plan import MAX_SIDE
from patchmill.loaders.sources import Source


def chosen(
    source: Source, count: int, seed: int, epoch: int, ids: Sequence[int] | None
) -> Sequence[int]:
    """The ids, or the first of the epoch; a MillError where there are no such samples."""
    if count < 1:
        raise MillError(f"count must be at least 1, not {count}")
    if ids is None:
        return Order(len(source), seed).ids(epoch, 0, min(count, len(source))).tolist()
    for id in ids:
        if not 0 <= id < len(source):
            raise MillError(f"{source.name} has the samples 0 to {len(source) - 1}, but no {id}")
    return ids


def label_of(source: Source, id: int) -> str:
    """The name of its class; empty where it has none."""
    if source.labels is None or not source.classes:
        return ""
    return source.classes[int(source.labels[id])]


def image_of(source: Source, id: int) -> tuple[np.ndarray | None, str]:
    """The image, or what is wrong with it."""
    try:
        image = decode(source.read(id))
        if max(image.shape) > MAX_SIDE:
            raise BadImage(f"a side of {max(image.shape)} pixels is too long")
        return image, ""
    except (BadImage, OSError) as error:
        return None, getattr(error, "strerror", None) or str(error)
