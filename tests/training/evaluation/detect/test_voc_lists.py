"""Lists of images in VOC's layout: boxes and difficult objects, and mistakes in one sentence."""

from __future__ import annotations

from pathlib import Path

import helpers_detection as helpers
import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.detect.annotated import AnnotatedImages, open_images


def read(*files: Path) -> AnnotatedImages:
    return open_images("+".join(map(str, files)), None, "train_images")


def test_boxes_of_several_lists(tmp_path: Path):
    older = helpers.voc(tmp_path / "VOC2007", {"1": [("dog", 1, 2, 6, 8, 0)], "2": []})
    newer = helpers.voc(
        tmp_path / "VOC2012", {"9": [("cat", 3.5, 1, 20, 16, 1), ("dog", 2, 2, 9, 9, 0)]}
    )
    images = read(older, newer)
    assert len(images) == 3 and images.classes == ["cat", "dog"] and not images.masked
    (first,), second, (hard, easy) = (images.instances(index) for index in range(3))
    assert first == (1, (0, 1, 6, 8), None, False, False) and second == []
    assert hard == (0, (2.5, 0, 20, 16), None, False, True) and easy.label == 1
    assert images.size(2) == (20, 16)
    assert images.where(2) == str(tmp_path / "VOC2012" / "JPEGImages" / "9.jpg")


def test_boxes_without_area_are_skipped(tmp_path: Path):
    boxes = [("dog", 5, 5, 4, 9, 0), ("dog", 5, 5, 5, 9, 0)]
    images = read(helpers.voc(tmp_path, {"1": boxes}))
    assert images.dropped == 1 and [each.box for each in images.instances(0)] == [(4, 4, 5, 9)]


def test_difficult_objects_alone_are_not_enough(tmp_path: Path):
    with pytest.raises(MillError, match="has no object to train or test on"):
        read(helpers.voc(tmp_path, {"1": [("dog", 1, 2, 6, 8, 1)]}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation></annotation>", r"1\.xml has no numeric size width"),
        ("<annotation><size>", r"1\.xml is not XML"),
        (
            "<annotation><size><width>2</width><height>2</height></size>"
            "<object><name>dog</name></object></annotation>",
            "has no numeric bndbox xmin",
        ),
        (
            "<annotation><size><width>2</width><height>2</height></size><object><bndbox><xmin>1"
            "</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></annotation>",
            "an object has no name",
        ),
    ],
)
def test_wrong_annotations(text: str, message: str, tmp_path: Path):
    file = helpers.voc(tmp_path, {"1": [("dog", 1, 2, 6, 8, 0)]})
    helpers.annotation(tmp_path, "1", text)
    with pytest.raises(MillError, match=message):
        read(file)


def test_missing_files(tmp_path: Path):
    file = helpers.voc(tmp_path, {"1": [("dog", 1, 2, 6, 8, 0)], "2": []})
    (tmp_path / "JPEGImages" / "2.jpg").unlink()
    with pytest.raises(MillError, match=r"1 of 2 images are missing, the first is .*2\.jpg"):
        read(file)
    (tmp_path / "Annotations" / "1.xml").unlink()
    with pytest.raises(MillError, match=r"cannot read .*1\.xml"):
        read(file)
    with pytest.raises(MillError, match="cannot read the list"):
        read(tmp_path / "ImageSets" / "Main" / "test.txt")
    alone = tmp_path / "a" / "b" / "c" / "list.txt"
    alone.parent.mkdir(parents=True)
    alone.write_text("1\n")
    with pytest.raises(MillError, match="is not in a folder with VOC's layout"):
        read(alone)


@pytest.mark.parametrize("name", ["../../elsewhere", "/elsewhere", "a\0b"])
def test_images_elsewhere_are_refused(name: str, tmp_path: Path):
    file = helpers.voc(tmp_path, {"one": [("cat", 1, 1, 5, 5, 0)]})
    file.write_text(f"{name}  1\n")
    with pytest.raises(MillError, match=r"a list names the image .*, which is not in"):
        open_images(str(file), None, "train_images")


@pytest.mark.parametrize("width", ["nan", "inf", "1e300", ""])
def test_invalid_sizes(width: str, tmp_path: Path):
    file = helpers.voc(tmp_path, {"one": [("cat", 1, 1, 5, 5, 0)]})
    size = f"<size><width>{width}</width><height>16</height></size>"
    helpers.annotation(tmp_path, "one", f"<annotation>{size}</annotation>")
    with pytest.raises(MillError, match="has no numeric size width"):
        open_images(str(file), None, "train_images")
