"""Average precision of detections with values that are known by hand."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import helpers_detection as helpers
import numpy as np
import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.detect import scores
from patchmill.training.evaluation.detect.annotated import AnnotatedImages, open_images
from patchmill.training.evaluation.detect.batches import mask_of
from patchmill.training.evaluation.detect.train import Detections

rle = pytest.importorskip("pycocotools.mask")


def detections(
    boxes: Sequence[Sequence[float]], labels: Sequence[int], confidence: Sequence[float]
) -> Detections:
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(found, np.array(labels), np.array(confidence, np.float32), None)


def perfect(images: AnnotatedImages) -> list[Detections]:
    """Every object with its own box and mask; objects that are not judged as well."""
    every = []
    for index in range(len(images)):
        width, height = images.size(index)
        objects = images.instances(index)
        found = detections(
            [o.box for o in objects], [o.label for o in objects], [0.5] * len(objects)
        )
        masks = [
            rle.encode(np.asfortranarray(mask_of(o.shape, height, width)))
            for o in objects
            if o.shape is not None
        ]
        every.append(found._replace(masks=masks))
    return every


def score(
    images: AnnotatedImages, found: Sequence[Detections], kind: Any = "bbox"
) -> scores.Scores:
    return scores.score(scores.truth(images, images.classes), found, kind)


def read(folder: Path, boxes: Sequence[dict[str, Any]]) -> AnnotatedImages:
    return open_images(str(helpers.coco(folder, boxes)), None, "")


def test_perfect_detections_of_a_file_and_of_scenes(tmp_path: Path):
    boxes = [
        helpers.box(3, 5, [2, 2, 8, 8], segmentation=helpers.SQUARE),
        helpers.box(3, 2, [0, 0, 5, 6], segmentation=[[0, 0, 5, 0, 5, 6, 0, 6]]),
        helpers.box(8, 5, [2, 2, 8, 8], segmentation=helpers.SQUARE, iscrowd=1),
    ]
    for images in (read(tmp_path, boxes), open_images("scenes(count=3, size=48)", None, "")):
        for kind in ("bbox", "segm"):
            assert score(images, perfect(images), kind) == pytest.approx((1, 1, 1))


def test_half_of_the_objects(tmp_path: Path):
    """Recall 0.5 at precision 1 is 51 of the 101 points at which precision is averaged."""
    images = read(tmp_path, [helpers.box(i, 5, [2, 2, 8, 8]) for i in (3, 8)])
    found = [detections([[2, 2, 10, 10]], [1], [0.9]), detections([], [], [])]
    assert score(images, found) == pytest.approx((51 / 101,) * 3)


def test_thresholds_of_overlap(tmp_path: Path):
    """An IoU of 10 / 16 counts at 0.5, 0.55 and 0.6 of the ten thresholds."""
    images = read(tmp_path, [helpers.box(3, 5, [0, 0, 16, 16])])
    found = [detections([[0, 0, 10, 16]], [1], [0.9]), detections([], [], [])]
    assert score(images, found) == pytest.approx((0.3, 1, 0))


def test_a_wrong_class_and_no_detection(tmp_path: Path):
    images = read(tmp_path, [helpers.box(3, 5, [0, 0, 16, 16])])
    nothing = detections([], [], [])
    assert score(images, [detections([[0, 0, 16, 16]], [0], [0.9]), nothing]) == (0, 0, 0)
    assert score(images, [nothing, nothing]) == (0, 0, 0)


def test_a_confident_mistake_halves_the_precision(tmp_path: Path):
    images = read(tmp_path, [helpers.box(3, 5, [0, 0, 8, 8])])
    found = detections([[10, 10, 18, 16], [0, 0, 8, 8]], [1, 1], [0.9, 0.8])
    assert score(images, [found, detections([], [], [])]) == pytest.approx((0.5,) * 3)


def test_crowds_are_not_scored(tmp_path: Path):
    crowd = helpers.box(3, 5, [10, 0, 10, 16], iscrowd=1)
    images = read(tmp_path, [crowd, helpers.box(3, 5, [0, 0, 8, 8])])
    within = [[11, 1, 13, 3], [11, 1, 13, 3], [15, 4, 18, 8]]
    found = detections([*within, [0, 0, 8, 8]], [1] * 4, [0.9, 0.8, 0.7, 0.6])
    assert score(images, [found, detections([], [], [])]) == pytest.approx((1, 1, 1))


def test_difficult_objects_are_not_scored_by_their_iou(tmp_path: Path):
    """Any number of detections of a difficult object is ignored, but not a small one within it."""
    boxes = [("dog", 11, 1, 20, 16, 1), ("dog", 1, 1, 8, 8, 0)]
    images = open_images(str(helpers.voc(tmp_path, {"1": boxes})), None, "")
    twice = [[10, 0, 20, 16], [10, 0, 20, 16], [0, 0, 8, 8]]
    assert score(images, [detections(twice, [0] * 3, [0.9, 0.8, 0.7])]) == pytest.approx((1, 1, 1))
    small = [[11, 1, 13, 3], [0, 0, 8, 8]]
    assert score(images, [detections(small, [0] * 2, [0.9, 0.8])]) == pytest.approx((0.5,) * 3)


def test_without_pycocotools(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MillError, match=r"pip install 'patchmill\[eval\]'"):
        scores.require_pycocotools()
