"""Images and boxes in PASCAL VOC's format: lists of images, and an XML file for each image."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief
from patchmill.loaders.common.progress import track
from patchmill.loaders.files.regular_files import read_file
from patchmill.training.evaluation.detect.annotated import Instance
from patchmill.training.evaluation.detect.coco_checks import is_number, lies_in

log = logging.getLogger("patchmill")


class _Boxed(NamedTuple):
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


class _Image(NamedTuple):
    path: Path
    width: int
    height: int
    objects: list[_Boxed]


class VocLists:
    """Images in lists ROOT/ImageSets/Main/NAME.txt; classes in alphabetical order."""

    masked = False

    def __init__(self, lists: list[Path]) -> None:
        self.name = "+".join(map(str, lists))
        places = [place for file in lists for place in _listed(file)]
        images = []
        with track(f"reading {self.name}", len(places), unit="files") as advance:
            for root, name in places:
                images.append(_parse(root, name))
                advance(1)
        if missing := [image.path for image in images if not image.path.exists()]:
            raise MillError(
                f"{len(missing)} of {len(images)} images are missing, the first is {missing[0]}: "
                "download them"
            )
        self.classes = sorted({boxed.name for image in images for boxed in image.objects})
        self._labels = {name: label for label, name in enumerate(self.classes)}
        whole = [[boxed for boxed in image.objects if _has_area(boxed)] for image in images]
        self.dropped = sum(len(image.objects) for image in images) - sum(map(len, whole))
        self._images = [image._replace(objects=o) for image, o in zip(images, whole, strict=True)]
        if self.dropped:
            log.warning("%s: skipped %d boxes that have no area", self.name, self.dropped)

    def __len__(self) -> int:
        return len(self._images)

    def size(self, index: int) -> tuple[int, int]:
        return self._images[index].width, self._images[index].height

    def instances(self, index: int) -> list[Instance]:
        return [
            Instance(self._labels[name], corners, difficult=difficult)
            for name, corners, difficult in self._images[index].objects
        ]

    def read(self, index: int) -> bytes:
        return read_file(self._images[index].path)

    def where(self, index: int) -> str:
        return str(self._images[index].path)


def _has_area(boxed: _Boxed) -> bool:
    x1, y1, x2, y2 = boxed.corners
    return x1 < x2 and y1 < y2


def _listed(file: Path) -> list[tuple[Path, str]]:
    """Parse the root folder and name of each image in a list; further columns are ignored."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise MillError(f"cannot read the list {file}: {reason}") from None
    root = file.resolve().parents[2] if len(file.resolve().parents) > 2 else file.parent
    if not (root / "Annotations").is_dir():
        raise MillError(
            f"{file} is not in a folder with VOC's layout, ROOT/ImageSets/Main next to "
            "ROOT/Annotations and ROOT/JPEGImages: name a list in one"
        )
    return [(root, line.split()[0]) for line in lines if line.strip()]


def _parse(root: Path, name: str) -> _Image:
    file = root / "Annotations" / f"{name}.xml"
    if "\0" in name or not lies_in(root / "Annotations", f"{name}.xml"):
        raise MillError(f"a list names the image {brief(name)}, which is not in {root}: remove it")
    try:
        tree = ElementTree.parse(file).getroot()
    except OSError as error:
        raise MillError(f"cannot read {file}: {error.strerror or error}") from None
    except ElementTree.ParseError as error:
        raise MillError(f"{file} is not XML: {error}; download it again") from None
    width, height = (_number(tree, f"size/{side}", file) for side in ("width", "height"))
    objects = [_boxed(element, width, height, file) for element in tree.findall("object")]
    return _Image(root / "JPEGImages" / f"{name}.jpg", int(width), int(height), objects)


def _boxed(element: ElementTree.Element, width: float, height: float, file: Path) -> _Boxed:
    sides = ("xmin", "ymin", "xmax", "ymax")
    x1, y1, x2, y2 = (_number(element, f"bndbox/{side}", file) for side in sides)
    # Pixels are numbered from 1, and the last one is part of the box.
    corners = max(x1 - 1, 0.0), max(y1 - 1, 0.0), min(x2, width), min(y2, height)
    name = element.findtext("name", "").strip()
    if not name:
        raise MillError(f"{file}: an object has no name")
    return _Boxed(name, corners, element.findtext("difficult", "0").strip() == "1")


def _number(tree: ElementTree.Element, path: str, file: Path) -> float:
    text = tree.findtext(path, "")
    with contextlib.suppress(ValueError):
        if is_number(value := float(text)):
            return value
    missing = path.replace("/", " ")
    raise MillError(f"{file} has no numeric {missing}: correct it")
