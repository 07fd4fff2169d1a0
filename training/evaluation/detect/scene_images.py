"""Made-up scenes with the boxes and masks of their objects."""

from __future__ import annotations

import functools

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.jpeg_header import jpeg_frame
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.scenes.source import Scenes
from patchmill.training.evaluation.detect.annotated import Instance


class SceneImages:
    masked, dropped = True, 0

    def __init__(self, text: str) -> None:
        scenes = open_source(text)
        if not isinstance(scenes, Scenes):
            raise MillError(f"{text} has no boxes: use scenes:COUNT")
        self._scenes = scenes
        self.name, self.classes = scenes.name, scenes.classes
        self.size = functools.cache(self._size)

    def __len__(self) -> int:
        return len(self._scenes)

    def instances(self, index: int) -> list[Instance]:
        from pycocotools import mask as rle

        return [
            Instance(
                shown.label,
                tuple(map(float, shown.box)),  # type: ignore[arg-type]  # of four
                rle.encode(np.asfortranarray(shown.mask, np.uint8)),
            )
            for shown in self._scenes.objects(index)
        ]

    def read(self, index: int) -> bytes:
        return self._scenes.read(index)

    def where(self, index: int) -> str:
        return self._scenes.where(index)

    def _size(self, index: int) -> tuple[int, int]:
        frame = jpeg_frame(self._scenes.read(index))
        assert frame is not None, "scenes are JPEGs"
        return frame.width, frame.height
