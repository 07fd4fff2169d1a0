"""Average precision of detections with pycocotools' COCOeval."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.detect.annotated import AnnotatedImages
from patchmill.training.evaluation.detect.train import Detections

Kind = Literal["bbox", "segm"]


class Scores(NamedTuple):
    """Average precision, 0 to 1, over 101 recall levels, averaged over classes."""

    ap: float  # mean over IoU thresholds 0.5 to 0.95
    ap50: float
    ap75: float


def require_pycocotools() -> None:
    if importlib.util.find_spec("pycocotools") is None:
        raise MillError(
            "evaluate=detect reads masks and measures average precision with pycocotools, which is "
            "not installed: pip install 'patchmill[eval]'"
        )


def truth(images: AnnotatedImages, classes: Sequence[str]) -> dict[str, Any]:
    """Return all objects as the content of a COCO file; categories are numbered as in `classes`."""
    numbers = {name: number for number, name in enumerate(classes, 1)}
    entries: list[dict[str, Any]] = []
    for index in range(len(images)):
        for instance in images.instances(index):
            x1, y1, x2, y2 = instance.box
            entry = {
                "id": len(entries) + 1,
                "image_id": index,
                "category_id": numbers[images.classes[instance.label]],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(instance.crowd or instance.difficult),
                "difficult": instance.difficult,
            }
            entries.append(
                entry if instance.shape is None else {**entry, "segmentation": instance.shape}
            )
    sizes = [images.size(index) for index in range(len(images))]
    return {
        "images": [{"id": i, "width": w, "height": h} for i, (w, h) in enumerate(sizes)],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": entries,
    }


def score(objects: dict[str, Any], detections: Sequence[Detections], kind: Kind) -> Scores:
    """Score the boxes or the masks of each image's detections."""
    from pycocotools.coco import COCO

    results = [
        entry for i, detected in enumerate(detections) for entry in _results(i, detected, kind)
    ]
    if not results:
        return Scores(0.0, 0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
        coco = COCO()
        coco.dataset = objects
        coco.createIndex()
        evaluation = _evaluator()(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Scores(*(float(value) for value in evaluation.stats[:3]))


def _results(index: int, detected: Detections, kind: Kind) -> list[dict[str, Any]]:
    """Convert detections to COCO's results format."""
    x1, y1, x2, y2 = np.split(detected.boxes.astype(np.float64), 4, axis=1)
    boxes = np.concatenate([x1, y1, x2 - x1, y2 - y1], axis=1).tolist()
    shapes = boxes if kind == "bbox" else detected.masks
    assert shapes is not None, "a Mask R-CNN was trained"
    key = "bbox" if kind == "bbox" else "segmentation"
    return [
        {"image_id": index, "category_id": int(label) + 1, "score": float(score), key: shape}
        for label, score, shape in zip(detected.labels, detected.scores, shapes, strict=True)
    ]


def _evaluator() -> type:
    from pycocotools.cocoeval import COCOeval

    class Evaluator(COCOeval):
        """COCOeval that also handles VOC's difficult objects.

        They are ignored like crowds, and so is any number of detections of one; but detections are
        matched to them by IoU, not by the share of the detection within the object.
        """

        def computeIoU(self, imgId: int, catId: int) -> Any:
            instances = self._gts[imgId, catId]
            crowds = [instance["iscrowd"] for instance in instances]
            for instance in instances:
                instance["iscrowd"] = int(instance["iscrowd"] and not instance["difficult"])
            try:
                return super().computeIoU(imgId, catId)
            finally:
                for instance, crowd in zip(instances, crowds, strict=True):
                    instance["iscrowd"] = crowd

    return Evaluator
