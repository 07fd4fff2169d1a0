"""Labelled images whose colours reveal their classes, and a backbone that passes colours on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import avg_pool2d

from patchmill.training.evaluation.segment.budget import PAPER, Budget
from patchmill.training.evaluation.segment.labelled import IGNORED, Sample
from patchmill.training.evaluation.segment.pixels import Pixels

COLOURS = np.array([[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
CLASSES = len(COLOURS)
CPU = torch.device("cpu")


def labels(height: int, width: int, seed: int, cell: int = 8) -> np.ndarray:
    """uint8 [height, width]: random classes of the cells of a grid."""
    cells = np.random.default_rng(seed).integers(CLASSES, size=(height // cell, width // cell))
    return cells.repeat(cell, 0).repeat(cell, 1).astype(np.uint8)


def sample(height: int, width: int, seed: int, cell: int = 8) -> Sample:
    from torchvision import tv_tensors

    mask = labels(height, width, seed, cell)
    pixels = torch.from_numpy(COLOURS[mask]).permute(2, 0, 1)
    return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(torch.from_numpy(mask)))


class Coloured:
    """`count` images, whose colours reveal the classes."""

    name, classes = "coloured", ["background", "red", "green", "blue"]

    def __init__(self, count: int, height: int = 32, width: int = 32, seed: int = 0) -> None:
        self._count, self._height, self._width, self._seed = count, height, width, seed

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> Sample:
        return sample(self._height, self._width, self._seed + index)


class Oracle(nn.Module):
    """A frozen backbone whose maps are the image's colours, at stride 4."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [None, None]
        self.unused = nn.Parameter(torch.zeros(1))

    def forward_intermediates(self, x, indices, norm, intermediates_only):
        return [avg_pool2d(x, 4) for _ in indices]


def budget(**values: object) -> Budget:
    from dataclasses import replace

    small = dict(iterations=4, batch=2, size=(32, 32), lr=1e-3, channels=8, photometric=False)
    return replace(PAPER, **(small | values))


def pixels(multiple: int = 4) -> Pixels:
    return Pixels((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), multiple, CPU)


def write_pairs(
    images: Path, masks: Path, count: int = 3, height: int = 32, width: int = 40, first: int = 0
) -> None:
    """Write images and masks; `first` is the number that the masks have for class 0."""
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for index in range(count):
        mask = labels(height, width, index)
        Image.fromarray(COLOURS[mask]).save(images / f"{index}.png")
        Image.fromarray(mask + np.uint8(first)).save(masks / f"{index}.png")


def write_ade20k(root: Path, **options: int) -> Path:
    """A root as ADE20K's: 0 is no class, and 1 is class 0."""
    for split in ("training", "validation"):
        write_pairs(root / "images" / split, root / "annotations" / split, first=1, **options)
    return root


def colours_match(view: Sample, tolerance: int = 0) -> torch.Tensor:
    """True at each pixel whose colour is its label's; ignored pixels have to be black."""
    table = torch.from_numpy(np.concatenate([COLOURS, np.zeros((256 - CLASSES, 3), np.uint8)]))
    mask = view.mask.as_subclass(torch.Tensor).long()
    assert set(mask.unique().tolist()) <= {*range(CLASSES), IGNORED}
    expected = table[mask].permute(2, 0, 1).int()
    return ((view.image.as_subclass(torch.Tensor).int() - expected).abs() <= tolerance).all(0)
