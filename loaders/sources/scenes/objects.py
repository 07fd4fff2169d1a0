"""Ground truth of a scene's objects, from its object map: boxes, masks and classes of pixels.

An object map, uint8 [height, width], holds the number of the nearest object at each pixel: 0 where
there is none, 1 for the main one. `labels[n - 1]` is the class of object n.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchmill.kernels.common.jit import jit

Labels = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class SceneObject:
    """The visible part of one object."""

    label: int
    box: tuple[int, int, int, int]  # x1, y1, x2, y2 of the mask in pixels; x2 and y2 lie outside
    mask: np.ndarray  # bool [height, width]: unoccluded pixels of the object


def visible(object_map: np.ndarray, labels: Labels) -> list[SceneObject]:
    """The objects with visible pixels, nearest first; their masks are disjoint."""
    numbers = np.unique(object_map[object_map > 0])
    masks = [object_map == number for number in numbers]
    return [
        SceneObject(int(labels[number - 1]), _box(mask), mask)
        for number, mask in zip(numbers, masks, strict=True)
    ]


def segmentation(object_map: np.ndarray, labels: Labels) -> np.ndarray:
    """uint8 [height, width]: 1 + the class of the object at each pixel, 0 on the background."""
    return np.array([0, *(label + 1 for label in labels)], np.uint8)[object_map]


def shrink(object_map: np.ndarray, factor: int) -> np.ndarray:
    """The most frequent object of every factor x factor block, if objects cover half of it."""
    if factor == 1:
        return object_map
    return _shrink(object_map, factor, int(object_map.max()) + 1)


@jit
def _shrink(object_map, factor, numbers):
    height, width = object_map.shape[0] // factor, object_map.shape[1] // factor
    small = np.zeros((height, width), np.uint8)
    areas = np.zeros(numbers, np.int64)
    for y in range(height):
        for x in range(width):
            areas[:] = 0
            for j in range(y * factor, (y + 1) * factor):
                for i in range(x * factor, (x + 1) * factor):
                    areas[object_map[j, i]] += 1
            if 2 * (factor * factor - areas[0]) >= factor * factor:
                best = 1
                for number in range(2, numbers):
                    if areas[number] > areas[best]:
                        best = number
                small[y, x] = best
    return small


def pack(object_map: np.ndarray) -> bytes:
    return zlib.compress(object_map.tobytes(), 6)


def unpack(packed: bytes, height: int, width: int) -> np.ndarray | None:
    """The object map from `pack`; None if the data hold none of this size."""
    reader, count = zlib.decompressobj(), height * width
    try:
        data = reader.decompress(packed, count + 1)
    except zlib.error:
        return None
    if len(data) != count or not reader.eof:
        return None
    return np.frombuffer(data, np.uint8).reshape(height, width)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
