"""Images and objects of a COCO annotation file: boxes, polygons, run-length masks and crowds."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief
from patchmill.loaders.files.regular_files import read_file
from patchmill.training.evaluation.detect.annotated import Instance
from patchmill.training.evaluation.detect.coco_checks import (
    is_mask,
    is_number,
    is_side,
    lies_in,
    problems,
)

log = logging.getLogger("patchmill")


class CocoFile:
    """A COCO file. Classes are its categories in the order of their ids, which may have gaps."""

    def __init__(self, file: Path, folder: str | None, key: str) -> None:
        content = _read(file)
        self.name = str(file)
        categories = sorted(content["categories"], key=_order)
        self.classes = [str(category["name"]) for category in categories]
        if twice := {name for name in self.classes if self.classes.count(name) > 1}:
            raise MillError(f"{file}: two categories have the name {brief(min(twice))}: rename one")
        self._labels = {category["id"]: n for n, category in enumerate(categories)}
        self._images: list[dict[str, Any]] = content["images"]
        _check_images(file, self._images)
        self._folder = _find_folder(file, folder, key)
        _check_files(self._folder, self._images, key)
        self._objects: dict[Any, list[dict[str, Any]]] = {i["id"]: [] for i in self._images}
        self._group(content["annotations"])

    def __len__(self) -> int:
        return len(self._images)

    def size(self, index: int) -> tuple[int, int]:
        image = self._images[index]
        return int(image["width"]), int(image["height"])

    def instances(self, index: int) -> list[Instance]:
        width, height = self.size(index)
        return [
            Instance(
                self._labels[annotation["category_id"]],
                _corners(annotation["bbox"], width, height),
                _shape(annotation),
                bool(annotation.get("iscrowd")),
            )
            for annotation in self._objects[self._images[index]["id"]]
        ]

    def read(self, index: int) -> bytes:
        return read_file(self._path(index))

    def where(self, index: int) -> str:
        return str(self._path(index))

    def _path(self, index: int) -> Path:
        return self._folder / self._images[index]["file_name"]

    def _group(self, annotations: list[dict[str, Any]]) -> None:
        """Group annotations by image; skip boxes without area, and count them."""
        sizes = {image["id"]: self.size(index) for index, image in enumerate(self._images)}
        self.dropped, self.masked = 0, True
        for annotation in annotations:
            image, category = annotation["image_id"], annotation["category_id"]
            if image not in sizes or category not in self._labels:
                missing = f"image {brief(image)}"
                if image in sizes:
                    missing = f"category {brief(category)}"
                raise MillError(
                    f"{self.name}: an annotation refers to {missing}, which the file does not list"
                )
            box = annotation["bbox"]
            if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
                raise MillError(
                    f"{self.name}: a box of image {brief(image)} is {brief(box)}, not "
                    "[x, y, width, height]"
                )
            x1, y1, x2, y2 = _corners(box, *sizes[image])
            if x2 <= x1 or y2 <= y1:
                self.dropped += 1
                continue
            shape = annotation.get("segmentation") or None
            if shape is not None and not is_mask(shape, *sizes[image]):
                raise MillError(
                    f"{self.name}: a mask of image {brief(image)} is neither polygons in the image "
                    "nor run lengths (RLE) of its size"
                )
            self.masked = self.masked and _shape(annotation) is not None
            self._objects[image].append(annotation)
        if self.dropped:
            log.warning("%s: skipped %d boxes that have no area", self.name, self.dropped)


def _order(category: dict[str, Any]) -> tuple[bool, Any]:
    """Sort key by id: numbers first, then text."""
    return isinstance(category["id"], str), category["id"]


def _corners(box: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    """Convert x, y, width, height to x1, y1, x2, y2, clipped to the image."""
    x, y, w, h = box
    return max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))


def _shape(annotation: dict[str, Any]) -> Any:
    """Return the mask: RLE, or the polygons with at least three corners; None if there is none."""
    shape = annotation.get("segmentation")
    if isinstance(shape, list):
        return [corners for corners in shape if len(corners) >= 6] or None
    return shape or None


# ----------------------------------------------------------------------------------------- the file


def _read(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise MillError(f"cannot read {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise MillError(f"{file} is not JSON: {brief(str(error))}; download it again") from None
    if problem := next(problems(content), None):
        raise MillError(f"{file} is not a COCO annotation file: {problem}")
    return content


def _check_images(file: Path, images: list[dict[str, Any]]) -> None:
    for image in images:
        for side in ("width", "height"):
            if not is_side(image[side]):
                raise MillError(
                    f"{file}: image {brief(image['id'])} has the {side} {brief(image[side])}, not "
                    "a number of pixels"
                )
    if len({image["id"] for image in images}) < len(images):
        raise MillError(f"{file}: two images have the same id")


def _find_folder(file: Path, folder: str | None, key: str) -> Path:
    """Find the image folder: as named, COCO's (next to `annotations`), or the file's own."""
    name = file.stem.partition("_")[2]  # train2017, of instances_train2017
    usual = file.parent.parent / name if file.parent.name == "annotations" else file.parent
    chosen = Path(folder) if folder else usual
    if not chosen.is_dir():
        raise MillError(f"there is no image folder {chosen}: name it with {key}=DIR")
    return chosen


def _check_files(folder: Path, images: list[dict[str, Any]], key: str) -> None:
    """Raise a MillError for images outside the folder or missing from its listings."""
    listed: dict[Path, set[str]] = {}
    missing = []
    for image in images:
        name = image["file_name"]
        if not lies_in(folder, name):
            raise MillError(
                f"an image is {brief(name)}, which is not in {folder}: name a folder that holds "
                f"all images with {key}=DIR"
            )
        path = folder / name
        if path.parent not in listed:
            listed[path.parent] = _names(path.parent)
        if path.name not in listed[path.parent]:
            missing.append(image["file_name"])
    if missing:
        raise MillError(
            f"{len(missing)} of {len(images)} images are not in {folder}, the first is "
            f"{brief(missing[0])}: download them, or name another folder with {key}=DIR"
        )


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()
