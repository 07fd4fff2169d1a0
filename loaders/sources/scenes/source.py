"""Procedural photos: textured places with things of several classes in them, and exact masks.

The scenes are made once, from a seed, and kept in the cache in parts of 256; a start that is
interrupted goes on with the next part. Scene i depends on the settings and i alone.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from dataclasses import asdict, astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.loaders.common import cache, columns
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.sources.numbered import NumberedSource

if TYPE_CHECKING:
    from patchmill.loaders.sources.scenes.scene import Scene, Settings

_PART = 256
_KIND = "scenes 2"  # raised whenever the same settings give other scenes


class Scenes(NumberedSource):
    """`count` scenes, labelled with the class of their main thing.

    Every class owns a background: it appears behind the class with chance `background_bias`, and
    otherwise any does. With `swap_backgrounds` every class is shown on the next class's background
    only, to test what a model has learnt from the bias. The things stay the same in all cases.
    `objects` is the least and the largest number of things in a scene; `size` makes all pictures
    square, with that side, instead of photo-sized.
    """

    def __init__(
        self,
        count: int = 1000,
        seed: int = 0,
        background_bias: float = 0.0,
        swap_backgrounds: bool = False,
        objects: tuple[int, int] = (1, 3),
        classes: int = 10,
        size: int | None = None,
    ) -> None:
        _check(count, seed, background_bias, swap_backgrounds, objects, classes, size)
        from patchmill.loaders.sources.scenes.scene import Settings, class_name

        low, high = objects
        settings = Settings(
            seed, float(background_bias), bool(swap_backgrounds), (low, high), classes, size
        )
        key = hashlib.sha256(repr((_KIND, *astuple(settings))).encode()).hexdigest()[:16]
        self.name = _name(count, settings)
        self.fingerprint = f"{key}-{count}"
        self.classes = [class_name(label) for label in range(classes)]
        self.masked = True
        self._count = count
        self._folder = cache.folder("scenes") / key
        self._parts = _made(self._folder, count, settings)
        self.labels: np.ndarray | None = np.concatenate([part["labels"] for part in self._parts])[
            :count
        ]

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> bytes:
        part, at = self._at(index)
        return columns.item(part["jpegs"], part["jpeg_starts"], at)

    def mask(self, index: int) -> np.ndarray:
        """uint8 [height, width]: 255 where any thing is, 0 elsewhere."""
        from patchmill.loaders.sources.scenes.scene import unpacked_mask

        part, at = self._at(index)
        height, width = part["shapes"][at]
        return unpacked_mask(columns.item(part["masks"], part["mask_starts"], at), height, width)

    def where(self, index: int) -> str:
        return f"{self._folder} scene {index}"

    def _at(self, index: int) -> tuple[columns.Columns, int]:
        if not 0 <= index < self._count:
            raise IndexError(f"there is no scene {index} among {self._count}")
        return self._parts[index // _PART], index % _PART


def _name(count: int, settings: Settings) -> str:
    """What the user has to write for the same scenes."""
    usual = inspect.signature(Scenes).parameters
    other = {k: v for k, v in asdict(settings).items() if v != usual[k].default}
    written = ", ".join(f"{name}={value!r}" for name, value in other.items())
    return f"scenes(count={count}, {written})" if written else f"scenes:{count}"


def _check(
    count: Any, seed: Any, bias: Any, swap: Any, objects: Any, classes: Any, size: Any
) -> None:
    def whole(value: Any, low: int, high: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    pair = isinstance(objects, tuple | list) and len(objects) == 2
    fits = pair and whole(objects[0], 1, 9) and whole(objects[1], objects[0], 9)
    share = isinstance(bias, int | float) and not isinstance(bias, bool) and 0 <= bias <= 1
    rules = [
        (whole(count, 1, 10**8), f"count must be 1 to 100 000 000, not {count!r}"),
        (whole(seed, 0, 2**63 - 1), f"seed must be a whole number from 0 on, not {seed!r}"),
        (share, f"background_bias must be a probability, 0 to 1, not {bias!r}"),
        (isinstance(swap, bool), f"swap_backgrounds must be True or False, not {swap!r}"),
        (fits, f"objects must be the least and largest number of things, 1 to 9, not {objects!r}"),
        (whole(classes, 1, 100), f"classes must be 1 to 100, not {classes!r}"),
        (swap is not True or classes != 1, "swap_backgrounds needs at least 2 classes"),
        (size is None or whole(size, 16, 2048), f"size must be 16 to 2048 pixels, not {size!r}"),
    ]
    for holds, complaint in rules:
        if not holds:
            raise MillError(f"scenes: {complaint}")


# ------------------------------------------------------------------------------------- the parts


def _made(folder: Path, count: int, settings: Settings) -> list[columns.Columns]:
    """All parts, mapped; those that are missing are painted first."""
    spans = [(start, min(start + _PART, count)) for start in range(0, count, _PART)]
    parts = [_find(folder, *span) for span in spans]
    if all(parts):
        return [part for part in parts if part]
    try:
        folder.mkdir(exist_ok=True)
        with cache.lock(folder / "lock"):
            for rest in folder.glob("*.tmp"):
                rest.unlink()
            parts = [_find(folder, *span) for span in spans]
            missing = [span for span, part in zip(spans, parts, strict=True) if part is None]
            with track("painting scenes", sum(stop - start for start, stop in missing)) as advance:
                for span in missing:
                    _paint(folder, span, settings, advance)
    except OSError as error:
        raise cache.unusable(folder, error) from None
    return [
        part or columns.read(_path(folder, *span), _KIND)
        for span, part in zip(spans, parts, strict=True)
    ]


def _path(folder: Path, start: int, stop: int) -> Path:
    return folder / f"{start:09d}-{stop:09d}.scenes"


def _find(folder: Path, start: int, stop: int) -> columns.Columns | None:
    """The part, or the whole part of a larger set that begins with the same scenes."""
    whole = columns.find(_path(folder, start, start + _PART), _KIND)
    return whole or columns.find(_path(folder, start, stop), _KIND)


def _paint(folder: Path, span: tuple[int, int], settings: Settings, advance: Any) -> None:
    from patchmill.loaders.sources.scenes.scene import make

    scenes: list[Scene] = []
    for scene in map_in_threads(partial(make, settings), range(*span), _cores()):
        scenes.append(scene)
        advance(1)
    jpegs, jpeg_starts = columns.join([scene.jpeg for scene in scenes])
    masks, mask_starts = columns.join([scene.packed_mask() for scene in scenes])
    content = {
        "jpegs": jpegs,
        "jpeg_starts": jpeg_starts,
        "masks": masks,
        "mask_starts": mask_starts,
        "shapes": np.array([scene.owner.shape for scene in scenes], np.int32),
        "labels": np.array([scene.label for scene in scenes], np.int64),
        "backgrounds": np.array([scene.background for scene in scenes], np.int64),
    }
    columns.write(_path(folder, *span), _KIND, content, {"settings": astuple(settings)})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
