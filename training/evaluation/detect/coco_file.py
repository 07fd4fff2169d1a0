"""Images and objects of a COCO annotation file: boxes, polygons, run-length masks and crowds."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.regular_files import read_file
from patchmill.training.evaluation.detect.annotated import Instance

log = logging.getLogger("patchmill")

_NEEDED = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


class CocoFile:
    """A COCO file. Classes are its categories in the order of their ids, which may have holes."""

    def __init__(self, file: Path, folder: str | None, key: str) -> None:
        content = _read(file)
        self.name = str(file)
        categories = sorted(content["categories"], key=lambda category: category["id"])
        self.classes = [str(category["name"]) for category in categories]
        if twice := {name for name in self.classes if self.classes.count(name) > 1}:
            raise MillError(f"{file}: two categories have the name {min(twice)!r}: rename one")
        self._labels = {category["id"]: n for n, category in enumerate(categories)}
        self._images: list[dict[str, Any]] = content["images"]
        _check_images(file, self._images)
        self._folder = _find_folder(file, folder, key)
        _check_files(self._folder, self._images, key)
        self._objects: dict[Any, list[dict[str, Any]]] = {i["id"]: [] for i in self._images}
        self._sort(content["annotations"])

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

    def _sort(self, annotations: list[dict[str, Any]]) -> None:
        """Sort annotations by their images; leave out boxes without area, and count them."""
        sizes = {image["id"]: self.size(index) for index, image in enumerate(self._images)}
        self.dropped, self.masked = 0, True
        for annotation in annotations:
            image, category = annotation["image_id"], annotation["category_id"]
            if image not in sizes or category not in self._labels:
                missing = f"image {image}" if image not in sizes else f"category {category}"
                raise MillError(
                    f"{self.name}: an annotation is of {missing}, which the file does not list"
                )
            box = annotation["bbox"]
            if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
                raise MillError(
                    f"{self.name}: a box of image {image} is {box!r}, not [x, y, width, height]"
                )
            x1, y1, x2, y2 = _corners(box, *sizes[image])
            if x2 <= x1 or y2 <= y1:
                self.dropped += 1
                continue
            shape = _shape(annotation)
            self.masked = self.masked and shape is not None
            if isinstance(shape, dict) and not _fits(shape, *sizes[image]):
                raise MillError(
                    f"{self.name}: a mask of image {image} is not run lengths (RLE) of its size"
                )
            self._objects[image].append(annotation)
        if self.dropped:
            log.warning("%s: %d boxes have no area and are left out", self.name, self.dropped)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")


def _fits(shape: dict[str, Any], width: int, height: int) -> bool:
    """True for an RLE of an image's size."""
    return isinstance(shape.get("counts"), list | str) and shape.get("size") == [height, width]


def _corners(box: list[float], width: int, height: int) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 within the image, of x, y, width, height."""
    x, y, w, h = box
    return max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))


def _shape(annotation: dict[str, Any]) -> Any:
    """The mask: RLE, or those of the polygons that have three corners; None without either."""
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
    except ValueError as error:
        raise MillError(f"{file} is not JSON: {error}; fetch it again") from None
    if problem := next(_problems(content), None):
        raise MillError(f"{file} is not a COCO annotation file: {problem}")
    return content


def _problems(content: Any) -> Iterator[str]:
    for section, keys in _NEEDED.items():
        entries = content.get(section) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            yield f"it has no list {section!r}"
            continue
        for entry in entries:
            missing = [k for k in keys if not isinstance(entry, dict) or k not in entry]
            if missing:
                yield f"one of its {section} has no {missing[0]!r}"
                break


def _check_images(file: Path, images: list[dict[str, Any]]) -> None:
    for image in images:
        for side in ("width", "height"):
            if not (_is_number(image[side]) and image[side] >= 1):
                raise MillError(
                    f"{file}: image {image['id']} has the {side} {image[side]!r}, not a number of "
                    "pixels"
                )
    if len({image["id"] for image in images}) < len(images):
        raise MillError(f"{file}: two images have the same id")


def _find_folder(file: Path, folder: str | None, key: str) -> Path:
    """The folder of the images: as named, COCO's (beside `annotations`), or that of the file."""
    name = file.stem.partition("_")[2]  # train2017, of instances_train2017
    usual = file.parent.parent / name if file.parent.name == "annotations" else file.parent
    chosen = Path(folder) if folder else usual
    if not chosen.is_dir():
        raise MillError(f"there is no folder {chosen} of images: name theirs, as {key}=DIR")
    return chosen


def _check_files(folder: Path, images: list[dict[str, Any]], key: str) -> None:
    """Raise a MillError for images that are not there, from listings of their folders."""
    listed: dict[Path, set[str]] = {}
    missing = []
    for image in images:
        path = folder / str(image["file_name"])
        if path.parent not in listed:
            there = path.parent.is_dir()
            listed[path.parent] = {p.name for p in path.parent.iterdir()} if there else set()
        if path.name not in listed[path.parent]:
            missing.append(image["file_name"])
    if missing:
        raise MillError(
            f"{len(missing)} of {len(images)} images are not in {folder}, the first is "
            f"{missing[0]}: fetch them, or name another folder, as {key}=DIR"
        )
