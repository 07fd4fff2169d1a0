"""Painted scenes, the images of all steps: painted once and repeated endlessly.

python -m patchmill.benchmarks.lib.gpu_day.images [COUNT]
"""

from __future__ import annotations

import sys

import numpy as np

from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.numbered import NumberedSource

COUNT = 1024


class RepeatedScenes(NumberedSource):
    """`count` scenes, `times` over: no measurement reaches an epoch's end, which drains queues."""

    def __init__(self, count: int = COUNT, times: int = 10_000) -> None:
        self._scenes = open_source(f"scenes:{count}")
        self.name = f"{self._scenes.name}, repeated"
        self.fingerprint = f"{self._scenes.fingerprint}-{times}-times"
        self.classes = self._scenes.classes
        self._count = count * times
        self.labels = np.tile(np.asarray(self._scenes.labels), times)

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> bytes:
        return self._scenes.read(index % len(self._scenes))

    def where(self, index: int) -> str:
        return self._scenes.where(index % len(self._scenes))


if __name__ == "__main__":
    count = sys.argv[1] if sys.argv[1:] else COUNT
    print(f"{len(open_source(f'scenes:{count}'))} scenes are painted")
