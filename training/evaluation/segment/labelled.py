"""Images with a class for each pixel: folders of images and masks, and made-up scenes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import available_cores, map_in_threads
from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.files.regular_files import read_file
from patchmill.loaders.sources import open_source
from patchmill.training.evaluation.segment.pairs import Pairs, find_pairs, open_image_folder
from patchmill.training.evaluation.segment.settings import MOST_CLASSES, Zero

if TYPE_CHECKING:
    from torchvision import tv_tensors

IGNORED = 255  # label of pixels that are ignored in training and testing
ADE20K_CLASSES = 150


class Sample(NamedTuple):
    image: tv_tensors.Image  # uint8 [3, H, W]
    mask: tv_tensors.Mask  # uint8 [H, W]: classes from 0 on, or IGNORED


class Labelled(Protocol):
    name: str
    classes: Sequence[str]  # names, by label

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample: ...


class Splits(NamedTuple):
    train: Labelled
    test: Labelled


def open_splits(
    root: str, train: str, test: str | None, zero: Zero = "auto", classes: int | None = None
) -> Splits:
    """Open labelled images for training and testing.

    With `root`, they are laid out like ADE20K: `images/training`, `annotations/training` and the
    same for `validation`. Otherwise `train` and `test` are made-up scenes, or folders of `images`
    and `masks`.
    """
    if root:
        places = [open_image_folder(root, "train"), open_image_folder(root, "test")]
    elif test is None:
        raise MillError("there are no test images: name some with root=DIR or data.test=DIR")
    elif is_scenes(train) and is_scenes(test):
        return Splits(LabelledScenes(train), LabelledScenes(test))
    else:
        places = [find_pairs(train, "data.train"), find_pairs(test, "data.test")]
    reduced = [place.ade20k if zero == "auto" else zero for place in places]
    count = classes or _count_classes(places[0], reduced[0])
    train_set, test_set = map(LabelledFolder, places, reduced, (count, count))
    return Splits(train_set, test_set)


def is_scenes(text: str) -> bool:
    return text == "scenes" or text.startswith(("scenes:", "scenes("))


class LabelledScenes:
    """Made-up scenes; class 0 is the background, the others are the objects' classes."""

    def __init__(self, text: str) -> None:
        self._source: Any = open_source(text)
        self.name = self._source.name
        self.classes: Sequence[str] = ["background", *self._source.classes]

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> Sample:
        return _sample(decode(self._source.read(index)), self._source.segmentation(index))


class LabelledFolder:
    """Images with masks of the same names; with `reduced`, 0 in a mask is ignored, 1 is class 0."""

    def __init__(self, pairs: Pairs, reduced: bool, classes: int) -> None:
        self.name = pairs.name
        self.classes: Sequence[str] = [str(label + reduced) for label in range(classes)]
        self._pairs, self._reduced = pairs.pairs, reduced

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> Sample:
        image_path, mask_path = self._pairs[index]
        image, mask = _read_image(image_path), read_mask(mask_path)
        if image.shape[:2] != mask.shape:
            raise MillError(
                f"{mask_path} has {mask.shape[1]} x {mask.shape[0]} pixels, but {image_path} "
                f"{image.shape[1]} x {image.shape[0]}: a mask must be as large as its image"
            )
        labels = reduce_zero(mask) if self._reduced else mask
        counted = labels[labels != IGNORED]
        if counted.size and counted.max() >= len(self.classes):
            most = int(counted.max()) + 1
            hint = f"set classes={most}" if most <= MOST_CLASSES else "is it a mask of classes?"
            raise MillError(
                f"{mask_path} has the label {most - 1 + self._reduced}, but there are "
                f"{len(self.classes)} classes, from {self.classes[0]} on: {hint}"
            )
        return _sample(image, labels)


def read_mask(path: Path) -> np.ndarray:
    """Read int32 [H, W]: the values of a greyscale image, or a palette's indices."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(read_file(path))) as mask:
            if mask.mode not in ("1", "L", "P", "I", "I;16"):
                raise MillError(
                    f"{path} is an image in mode {mask.mode}: a mask has one number for each "
                    "pixel, its class"
                )
            return np.asarray(mask).astype(np.int32)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise MillError(f"cannot read the mask {path}: {error}") from None


def reduce_zero(mask: np.ndarray) -> np.ndarray:
    """Convert ADE20K's masks to labels: 0 and 255 become IGNORED, the others decrease by one."""
    return np.where((mask == 0) | (mask == IGNORED), IGNORED, mask - 1)


def _read_image(path: Path) -> np.ndarray:
    try:
        return decode(read_file(path))
    except (OSError, BadImage) as error:
        raise MillError(f"cannot read the image {path}: {error}") from None


def _sample(image: np.ndarray, labels: np.ndarray) -> Sample:
    from torchvision import tv_tensors

    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    mask = torch.from_numpy(np.ascontiguousarray(labels.astype(np.uint8)))
    return Sample(tv_tensors.Image(pixels), tv_tensors.Mask(mask))


def _count_classes(pairs: Pairs, reduced: bool) -> int:
    """Return 150 for folders laid out like ADE20K, otherwise the largest label plus one."""
    if pairs.ade20k:
        return ADE20K_CLASSES
    most = 0
    with track(f"counting the classes of {pairs.name}", len(pairs.pairs), unit="masks") as advance:
        for mask in map_in_threads(
            lambda pair: read_mask(pair.mask), pairs.pairs, available_cores()
        ):
            labels = reduce_zero(mask) if reduced else mask
            most = max(most, int(labels[labels != IGNORED].max(initial=0)))
            advance(1)
    if most >= MOST_CLASSES:
        raise MillError(
            f"the masks of {pairs.name} have labels up to {most}: there can be at most "
            f"{MOST_CLASSES} classes, from 0 on"
        )
    return most + 1
