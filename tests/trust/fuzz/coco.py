"""Damaged COCO annotations: read, with all their masks rendered."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import helpers_detection
import numpy as np

from patchmill.training.evaluation.detect import batches
from patchmill.training.evaluation.detect.annotated import open_images, pixels
from trust.check import Check, Outcome, Task
from trust.fuzz.damage import damaged
from trust.fuzz.sentences import tried, with_odd_value, with_odd_word


def seed(folder: Path) -> Path:
    from pycocotools import mask as rle

    plane = np.zeros((16, 20), np.uint8, order="F")
    plane[3:9, 4:15] = 1
    text = rle.encode(plane)["counts"].decode()
    box = helpers_detection.box
    objects = [
        box(3, 5, [2, 2, 8, 8], segmentation=helpers_detection.SQUARE),
        box(3, 2, [2, 0, 2, 3], segmentation={"size": [16, 20], "counts": [32, 3, 13, 3, 269]}),
        box(8, 2, [4, 3, 11, 6], segmentation={"size": [16, 20], "counts": text}, iscrowd=1),
        box(8, 5, [1.5, 2, 3, 4]),
    ]
    return helpers_detection.coco(folder, objects)


def fuzz(task: Task) -> Outcome:
    logging.getLogger("patchmill").setLevel(logging.ERROR)
    outcome, file = Outcome(), seed(task.folder)
    data = file.read_bytes()
    for index in range(task.tries):
        draw = task.random(index)
        if index % 3 == 0:
            done, content = damaged(data, draw)
        elif index % 3 == 1:
            done = "odd word"
            content = with_odd_word(data.decode(), draw).encode("utf-8", "replace")
        else:
            done, content = "odd value", _json(with_odd_value(json.loads(data), draw))
        file.write_bytes(content)
        tried(outcome, partial(use, file), f"try {index}, {done}")
    return outcome


def _json(plain: Any) -> bytes:
    return json.dumps(plain).encode()


def use(file: Path) -> None:
    images = open_images(str(file), None, "train_images")
    for index in range(len(images)):
        width, height = images.size(index)
        for instance in images.instances(index):
            assert 0 <= instance.label < len(images.classes), "a label without a class"
            if instance.shape is not None and width * height < 2**22:
                mask = batches.mask_of(instance.shape, height, width)
                assert mask.shape == (height, width), "a mask of the wrong size"
        pixels(images, index)


CHECKS = (
    Check(
        "fuzz-coco",
        "damaged COCO annotations, their masks made",
        fuzz,
        200,
        20_000,
        100_000,
        20,
        needs=("pycocotools",),
    ),
)
