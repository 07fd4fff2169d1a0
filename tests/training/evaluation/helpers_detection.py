"""Small files in COCO's and VOC's formats, and detectors of a few channels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from patchmill.training.config.settings import Model
from patchmill.training.evaluation.detect import detector, protocols, train
from patchmill.training.evaluation.detect.protocols import Protocol
from patchmill.training.evaluation.detect.pyramid import Pyramid
from patchmill.training.evaluation.detect.settings import Settings
from patchmill.training.nets import backbones

CPU = train.Machine(torch.device("cpu"))
SQUARE = [[2, 2, 10, 2, 10, 10, 2, 10]]  # a polygon
TINY = {
    "iterations": 2,
    "warmup": 1,
    "batch": 2,
    "short_sides": (32,),
    "test_side": 32,
    "channels": 8,
    "proposals": 50,
    "regions": 8,
}


def image(path: Path, width: int = 20, height: int = 16, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def box(image_id: int, category: int, corners: Sequence[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category, "bbox": list(corners), **more}


def coco(folder: Path, annotations: Sequence[dict[str, Any]], **sections: Any) -> Path:
    """Write COCO's layout with the images 3 and 8, of 20 x 16, and the categories 5 and 2."""
    names = {3: "b.png", 8: "a.png"}
    for number, name in names.items():
        image(folder / "tiny2017" / name, seed=number)
    content = {
        "images": [
            {"id": number, "file_name": name, "width": 20, "height": 16}
            for number, name in names.items()
        ],
        "annotations": [{"id": n, **each} for n, each in enumerate(annotations)],
        "categories": [{"id": 5, "name": "cat"}, {"id": 2, "name": "dog"}],
        **sections,
    }
    file = folder / "annotations" / "instances_tiny2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def voc(root: Path, objects: dict[str, Sequence[tuple[Any, ...]]]) -> Path:
    """Write VOC's layout; objects of each image are (name, xmin, ymin, xmax, ymax, difficult)."""
    for name, boxes in objects.items():
        image(root / "JPEGImages" / f"{name}.jpg")
        items = "".join(
            f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin>"
            f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for kind, x1, y1, x2, y2, difficult in boxes
        )
        size = "<size><width>20</width><height>16</height><depth>3</depth></size>"
        annotation(root, name, f"<annotation>{size}{items}</annotation>")
    file = root / "ImageSets" / "Main" / "trainval.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{name}  1\n" for name in objects))
    return file


def annotation(root: Path, name: str, text: str) -> None:
    path = root / "Annotations" / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def protocol(**changes: Any) -> Protocol:
    return protocols.resolve("demo", Settings(**{**TINY, **changes}), images=8)


def backbone(**settings: Any) -> backbones.Backbone:
    torch.manual_seed(0)
    return backbones.build(Model(**{"name": "resnet10t", "stem": "imagenet", **settings}), 32)


def small_detector(
    plan: Protocol, classes: int, masked: bool = True, frozen: bool = False
) -> torch.nn.Module:
    with train.seeded(0, CPU.device):
        pyramid = Pyramid(backbone(), plan.channels, norm=True)
        pyramid.backbone.requires_grad_(not frozen)
        return detector.build(pyramid, classes, masked, plan, (0.5,) * 3, (0.25,) * 3)
