"""Images with their objects: the common interface of all annotation formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.training.evaluation.detect.settings import Settings

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config


class Instance(NamedTuple):
    """One object of an image."""

    label: int  # index of its class, from 0
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels
    shape: Any = None  # its mask, polygons or RLE as in COCO's files; None without masks
    crowd: bool = False  # a group: not trained on, and detections within it are not scored
    difficult: bool = False  # VOC's flag: trained on, but detections of it are not scored


class AnnotatedImages(Protocol):
    name: str  # for messages and results
    classes: list[str]
    masked: bool  # True if all objects have masks
    dropped: int  # objects skipped because their boxes have no area

    def __len__(self) -> int: ...

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height in pixels, according to the annotations."""
        ...

    def instances(self, index: int) -> list[Instance]: ...

    def read(self, index: int) -> bytes:
        """Return the encoded image."""
        ...

    def where(self, index: int) -> str:
        """Return the path of an image, for messages."""
        ...


def pixels(images: AnnotatedImages, index: int) -> np.ndarray:
    """Decode to uint8 [height, width, 3]; raise a MillError if unreadable or of another size."""
    try:
        image = decode(images.read(index))
    except (OSError, BadImage) as error:
        reason = getattr(error, "strerror", None) or error
        raise MillError(f"cannot read {images.where(index)}: {reason}; replace it") from None
    height, width, _ = image.shape
    if (width, height) != images.size(index):
        wrong = "{} x {}".format(*images.size(index))
        raise MillError(
            f"{images.where(index)} has {width} x {height} pixels, but {wrong} in its annotations: "
            "use the images that the annotations were made for"
        )
    return image


def open_pair(config: Config, settings: Settings) -> tuple[AnnotatedImages, AnnotatedImages]:
    """Open the training and test images."""
    texts = [settings.train, settings.test]
    if all(is_scenes(text) for text in texts if text):
        own = (config.data.train, config.data.test or "")
        texts = [
            text or (default if is_scenes(default) else "")
            for text, default in zip(texts, own, strict=True)
        ]
    for key, text in zip(("train", "test"), texts, strict=True):
        if not text:
            raise MillError(
                f"evaluate=detect needs images with boxes: name them with {key}=FILE.json (COCO), "
                f"{key}=VOC2007/ImageSets/Main/LIST.txt or {key}=scenes:COUNT"
            )
    train = open_images(texts[0], settings.train_images, "train_images")
    test = open_images(texts[1], settings.test_images, "test_images")
    unknown = sorted(
        {test.classes[label] for label in _labels(test, scored=False)} - set(train.classes)
    )
    if unknown:
        raise MillError(
            f"{test.name} has objects of the class {unknown[0]!r}, which {train.name} does not "
            "have: train and test on the same classes"
        )
    return train, test


def open_images(text: str, folder: str | None, key: str) -> AnnotatedImages:
    """Open the images named by the user; `key` is the setting for a COCO file's image folder."""
    from patchmill.training.evaluation.detect import coco_file, scene_images, voc_lists

    images: AnnotatedImages
    if is_scenes(text):
        images = scene_images.SceneImages(text)
    elif text.endswith(".json"):
        images = coco_file.CocoFile(Path(text), folder, key)
    elif text.endswith(".txt"):
        images = voc_lists.VocLists([Path(part) for part in text.split("+")])
    else:
        raise MillError(
            f"unknown format {text!r}: use FILE.json for COCO annotations, "
            "VOC2007/ImageSets/Main/LIST.txt for a list of VOC images, or scenes:COUNT"
        )
    if not _labels(images, scored=True):
        raise MillError(f"{images.name} has no object to train or test on")
    return images


def is_scenes(text: str) -> bool:
    return text == "scenes" or text.startswith(("scenes:", "scenes("))


def _labels(images: AnnotatedImages, scored: bool) -> set[int]:
    """Return the labels of all objects, or only of those that detections are scored on."""
    return {
        instance.label
        for index in range(len(images))
        for instance in images.instances(index)
        if not (scored and (instance.crowd or instance.difficult))
    }
