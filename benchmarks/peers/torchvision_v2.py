"""torchvision's v2 transforms on uint8 tensors, from its own JPEG decoder, in DataLoader workers.

The order is what torchvision's documentation recommends for speed: uint8 throughout, and float only
at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from patchmill.benchmarks.peers import Batches, ragged
from patchmill.benchmarks.peers.torchvision import geometry, jitter
from patchmill.benchmarks.peers.torchvision_gpu import QuarterTurns, blur, cells
from patchmill.benchmarks.peers.workers import FileViews, endless
from patchmill.loaders.recipe import Recipe, Views, chance_of

NOTE = ""
DEVICES = {"cpu": "", "cuda": "it makes views on a CPU; use torchvision-gpu on a GPU"}
DECODER, ANTIALIASED = "torchvision.io", True


def available() -> str | None:
    return None


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    transforms = [
        ViewTransform(group, view) for group in recipe.views for view in range(group.count)
    ]
    return endless(FileViews(paths, FileDecoder(), transforms), workers, batch_size)


class FileDecoder:
    def __init__(self) -> None:
        self._decode = ragged.torchvision("cpu")

    def __call__(self, path: str) -> Tensor:
        return self._decode([torch.from_numpy(np.fromfile(path, np.uint8))])[0]


class ViewTransform:
    """Make one view of a group, or the cells of one grid."""

    def __init__(self, group: Views, view: int) -> None:
        flip = v2.RandomHorizontalFlip(chance_of(group.flip, view))
        turns = [QuarterTurns()] if group.turns else []
        self._geometry = v2.Compose([*geometry(group, v2), flip, *turns])
        to_float = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(group.mean, group.std)]
        self._colour = v2.Compose([*_colours(group, view), *to_float])
        self._cell = group.size

    def __call__(self, image: Tensor) -> list[Tensor]:
        return [self._colour(cell) for cell in cells(self._geometry(image), self._cell)]


def _colours(group: Views, view: int) -> list[nn.Module]:
    steps: list[Any] = jitter(group.colour, view, v2) if group.colour else []
    if group.blur:
        steps.append(v2.RandomApply([blur(group.blur)], chance_of(group.blur.p, view)))
    if chance_of(group.solarise, view) > 0:
        steps.append(v2.RandomSolarize(128, chance_of(group.solarise, view)))
    return steps
