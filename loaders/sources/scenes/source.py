"""Procedural photos: objects of several classes on textured backgrounds, with exact masks.

Scenes are rendered once, from a seed, and cached in parts of 256; after an interruption only the
missing parts are rendered. Scene i depends on the settings and i alone.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import asdict, astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import available_cores, map_in_threads
from patchmill.loaders.files import cache, columns
from patchmill.loaders.files.column_checks import are_below, are_starts, has_columns
from patchmill.loaders.sources.numbered import NumberedSource
from patchmill.loaders.sources.scenes import objects as scene_objects
from patchmill.loaders.sources.scenes.objects import SceneObject

if TYPE_CHECKING:
    from patchmill.loaders.sources.scenes.scene import Scene, SceneSettings

_PART = 256
_MAX_SIDE = 2048  # of an image in pixels
_DRAWN = "scenes 5"  # increase whenever the same settings give different scenes
_STORED = ("jpegs", "object_maps")  # columns that are not kept in memory
KIND = "scenes 3"  # increase whenever the storage format of a part changes: parts are rebuilt
_FLAT = {"jpeg_starts": "<i8", "object_map_starts": "<i8", "labels": "<i8"}


class Scenes(NumberedSource):
    """`count` scenes, labelled with the class of their main object.

    Every class has its own background, on which it is shown with probability `background_bias`, and
    otherwise on a random one. With `swap_backgrounds` every class is shown on the next class's
    background, to test how much a model relies on the bias. An object has its class's palette with
    probability `colour_bias`, and otherwise one that does not depend on the class, so that at 0
    only shapes, parts and textures distinguish the classes. The objects' shapes and places are the
    same in all cases. `objects` is the range of the number of objects in a scene: the main one,
    which is the largest and never occluded, and smaller ones of random classes.
    `size` makes all images square with that side, instead of photo-sized.
    """

    def __init__(
        self,
        count: int = 1000,
        seed: int = 0,
        background_bias: float = 0.0,
        colour_bias: float = 0.0,
        swap_backgrounds: bool = False,
        objects: tuple[int, int] = (1, 3),
        classes: int = 10,
        size: int | None = None,
    ) -> None:
        biases = {"background_bias": background_bias, "colour_bias": colour_bias}
        _check(count, seed, biases, swap_backgrounds, objects, classes, size)
        from patchmill.loaders.sources.scenes.scene import SceneSettings, class_name

        low, high = objects
        settings = SceneSettings(
            seed,
            float(background_bias),
            float(colour_bias),
            bool(swap_backgrounds),
            (low, high),
            classes,
            size,
        )
        key = hashlib.sha256(repr((_DRAWN, *astuple(settings))).encode()).hexdigest()[:16]
        self.name = _to_text(count, settings)
        self.fingerprint = f"{key}-{count}"
        self.classes = [class_name(label) for label in range(classes)]
        self.masked = True
        self._count = count
        self._folder = cache.folder("scenes") / key
        self._parts = _open_parts(self._folder, count, settings)
        self.labels: np.ndarray | None = np.concatenate([part["labels"] for part in self._parts])[
            :count
        ]

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> bytes:
        part, at = self._locate(index)
        return columns.item(part["jpegs"], part["jpeg_starts"], at)

    def mask(self, index: int) -> np.ndarray:
        """uint8 [height, width]: 255 on objects, 0 elsewhere."""
        object_map, _ = self._object_map(index)
        return (object_map > 0) * np.uint8(255)

    def objects(self, index: int) -> list[SceneObject]:
        """Label, box and mask of every visible object, nearest first."""
        return scene_objects.visible(*self._object_map(index))

    def segmentation(self, index: int) -> np.ndarray:
        """uint8 [height, width]: 1 + the class of the object at each pixel, 0 on the background."""
        return scene_objects.segmentation(*self._object_map(index))

    def where(self, index: int) -> str:
        return f"{self._folder} scene {index}"

    def _object_map(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Number of the object at each pixel, and the class of every object."""
        part, at = self._locate(index)
        height, width = part["shapes"][at]
        packed = columns.item(part["object_maps"], part["object_map_starts"], at)
        labels = part["object_labels"][at]
        object_map = scene_objects.unpack(packed, height, width)
        if object_map is None or object_map.max(initial=0) > len(labels):
            raise OSError("its object map is damaged")
        return object_map, labels

    def _locate(self, index: int) -> tuple[columns.Columns, int]:
        if not 0 <= index < self._count:
            raise IndexError(f"there is no scene {index} among {self._count}")
        return self._parts[index // _PART], index % _PART


def _to_text(count: int, settings: SceneSettings) -> str:
    """The data string for these scenes: `scenes:COUNT` or `scenes(count=...)`."""
    parameters = inspect.signature(Scenes).parameters
    changed = {k: v for k, v in asdict(settings).items() if v != parameters[k].default}
    return calls.text("scenes", {"count": count, **changed}) if changed else f"scenes:{count}"


def _check(
    count: Any,
    seed: Any,
    biases: dict[str, Any],
    swap: Any,
    objects: Any,
    classes: Any,
    size: Any,
) -> None:
    def is_int(value: Any, low: int, high: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    is_pair = isinstance(objects, tuple | list) and len(objects) == 2
    is_range = is_pair and is_int(objects[0], 1, 9) and is_int(objects[1], objects[0], 9)

    def is_probability(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1

    rules = [
        (is_int(count, 1, 10**8), f"count must be 1 to 100 000 000, not {count!r}"),
        (is_int(seed, 0, 2**63 - 1), f"seed must be a whole number, 0 or more, not {seed!r}"),
        *(
            (is_probability(bias), f"{name} must be a probability, 0 to 1, not {bias!r}")
            for name, bias in biases.items()
        ),
        (isinstance(swap, bool), f"swap_backgrounds must be True or False, not {swap!r}"),
        (
            is_range,
            f"objects must be the least and largest number of objects, 1 to 9, not {objects!r}",
        ),
        (is_int(classes, 1, 100), f"classes must be 1 to 100, not {classes!r}"),
        (swap is not True or classes != 1, "swap_backgrounds needs at least 2 classes"),
        (
            size is None or is_int(size, 16, _MAX_SIDE),
            f"size must be 16 to {_MAX_SIDE} pixels, not {size!r}",
        ),
    ]
    for valid, problem in rules:
        if not valid:
            raise MillError(f"scenes: {problem}")


# --------------------------------------------------------------------------------- the cached parts


def _open_parts(folder: Path, count: int, settings: SceneSettings) -> list[columns.Columns]:
    """Open all parts, rendering the missing ones first."""
    spans = [(start, min(start + _PART, count)) for start in range(0, count, _PART)]
    parts = [_find(folder, *span, settings) for span in spans]
    if all(parts):
        return [part for part in parts if part]
    try:
        folder.mkdir(exist_ok=True)
        with cache.lock(folder / "lock"):
            for leftover in folder.glob("*.tmp"):
                leftover.unlink()
            parts = [_find(folder, *span, settings) for span in spans]
            missing = [span for span, part in zip(spans, parts, strict=True) if part is None]
            with track("painting scenes", sum(stop - start for start, stop in missing)) as advance:
                for span in missing:
                    _render_part(folder, span, settings, advance)
    except OSError as error:
        raise cache.unusable(folder, error) from None
    return [
        part or columns.read(_path(folder, *span), KIND, stored=_STORED)
        for span, part in zip(spans, parts, strict=True)
    ]


def _path(folder: Path, start: int, stop: int) -> Path:
    return folder / f"{start:09d}-{stop:09d}.scenes"


def _find(folder: Path, start: int, stop: int, settings: SceneSettings) -> columns.Columns | None:
    """The part, or the full part of a larger set that starts with the same scenes."""
    for end in (start + _PART, stop):
        valid = partial(_is_valid, end - start, settings)
        if part := columns.find(_path(folder, start, end), KIND, stored=_STORED, valid=valid):
            return part
    return None


def _is_valid(count: int, settings: SceneSettings, found: columns.Columns) -> bool:
    """True if a part is valid for this number of scenes."""
    others = {*_STORED, "shapes", "object_labels"}
    if not has_columns(found, _FLAT) or not others <= found.columns.keys():
        return False
    shapes, labels, classes = found["shapes"], found["object_labels"], settings.classes
    return (
        are_starts(found["jpeg_starts"], count, len(found["jpegs"]))
        and are_starts(found["object_map_starts"], count, len(found["object_maps"]))
        and (shapes.shape, shapes.dtype.str) == ((count, 2), "<i4")
        and (labels.shape, labels.dtype.str) == ((count, settings.objects[1]), "<i8")
        and len(found["labels"]) == count
        and all(are_below(column, classes) for column in (labels, found["labels"]))
        and are_below(shapes, _MAX_SIDE + 1)
    )


def _render_part(
    folder: Path, span: tuple[int, int], settings: SceneSettings, advance: Any
) -> None:
    from patchmill.loaders.sources.scenes.scene import make_scene

    scenes: list[Scene] = []
    for scene in map_in_threads(partial(make_scene, settings), range(*span), available_cores()):
        scenes.append(scene)
        advance(1)
    jpegs, jpeg_starts = columns.join([scene.jpeg for scene in scenes])
    object_maps, map_starts = columns.join(
        [scene_objects.pack(scene.object_map) for scene in scenes]
    )
    object_labels = np.zeros((len(scenes), settings.objects[1]), np.int64)
    for labels, scene in zip(object_labels, scenes, strict=True):
        labels[: len(scene.object_labels)] = scene.object_labels
    content = {
        "jpegs": jpegs,
        "jpeg_starts": jpeg_starts,
        "object_maps": object_maps,
        "object_map_starts": map_starts,
        "object_labels": object_labels,
        "shapes": np.array([scene.object_map.shape for scene in scenes], np.int32),
        "labels": np.array([scene.label for scene in scenes], np.int64),
        "backgrounds": np.array([scene.background for scene in scenes], np.int64),
    }
    columns.write(_path(folder, *span), KIND, content, {"settings": astuple(settings)})
