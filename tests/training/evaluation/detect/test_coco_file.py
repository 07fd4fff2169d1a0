"""COCO annotation files: their contents, and mistakes in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helpers_detection as helpers
import numpy as np
import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.detect import annotated, batches
from patchmill.training.evaluation.detect.annotated import AnnotatedImages, open_images

pytest.importorskip("pycocotools")


def read(file: Path) -> AnnotatedImages:
    return open_images(str(file), None, "train_images")


def test_classes_are_numbered_by_ids_with_gaps(tmp_path: Path):
    boxes = [helpers.box(8, 5, [1, 2, 3, 4]), helpers.box(3, 2, [0, 0, 5, 6])]
    images = read(helpers.coco(tmp_path, boxes))
    assert images.classes == ["dog", "cat"] and len(images) == 2
    (dog,), (cat,) = images.instances(0), images.instances(1)
    assert (dog.label, dog.box) == (0, (0, 0, 5, 6)) and (cat.label, cat.box) == (1, (1, 2, 4, 6))
    assert images.size(0) == (20, 16) and images.where(0).endswith("tiny2017/b.png")
    assert annotated.pixels(images, 1).shape == (16, 20, 3)
    assert not images.masked


def test_masks_of_polygons_and_of_runs(tmp_path: Path):
    runs = {"size": [16, 20], "counts": [32, 3, 13, 3, 269]}  # down the columns, from background
    boxes = [
        helpers.box(3, 5, [2, 2, 8, 8], segmentation=helpers.SQUARE),
        helpers.box(3, 5, [2, 0, 2, 3], segmentation=runs, iscrowd=1),
    ]
    images = read(helpers.coco(tmp_path, boxes))
    assert images.masked
    whole, crowd = images.instances(0)
    expected = np.zeros((16, 20), np.uint8)
    expected[2:10, 2:10] = 1
    assert np.array_equal(batches.mask_of(whole.shape, 16, 20), expected)
    expected[:] = 0
    expected[:3, 2:4] = 1
    assert np.array_equal(batches.mask_of(crowd.shape, 16, 20), expected)
    assert crowd.crowd and not whole.crowd


def test_boxes_are_clipped_and_those_without_area_skipped(tmp_path: Path):
    boxes = [
        helpers.box(3, 5, [-2, 10, 6, 20]),
        helpers.box(3, 5, [4, 4, 0, 5]),
        helpers.box(8, 2, [25, 4, 3, 5]),
    ]
    images = read(helpers.coco(tmp_path, boxes))
    assert images.dropped == 2 and images.instances(1) == []
    assert [instance.box for instance in images.instances(0)] == [(0, 10, 4, 16)]


def test_a_polygon_needs_three_corners(tmp_path: Path):
    boxes = [helpers.box(3, 5, [1, 1, 4, 4], segmentation=[[1, 1, 5, 5]])]
    assert not read(helpers.coco(tmp_path, boxes)).masked


def test_folder_of_the_images(tmp_path: Path):
    file = helpers.coco(tmp_path, [helpers.box(3, 5, [1, 1, 4, 4])])
    (tmp_path / "tiny2017").rename(tmp_path / "pixels")
    with pytest.raises(
        MillError, match=r"there is no image folder .*tiny2017: name it with train_images="
    ):
        read(file)
    images = open_images(str(file), str(tmp_path / "pixels"), "train_images")
    assert annotated.pixels(images, 0).shape == (16, 20, 3)


def test_missing_images_are_counted(tmp_path: Path):
    file = helpers.coco(tmp_path, [helpers.box(3, 5, [1, 1, 4, 4])])
    (tmp_path / "tiny2017" / "a.png").unlink()
    with pytest.raises(MillError, match=r"1 of 2 images are not in .*the first is 'a\.png'"):
        read(file)


def test_an_image_of_another_size_is_refused(tmp_path: Path):
    images = read(helpers.coco(tmp_path, [helpers.box(3, 5, [1, 1, 4, 4])]))
    helpers.image(tmp_path / "tiny2017" / "b.png", 16, 20)
    with pytest.raises(MillError, match=r"b\.png has 16 x 20 pixels, but 20 x 16"):
        annotated.pixels(images, 0)
    (tmp_path / "tiny2017" / "b.png").write_bytes(b"nonsense")
    with pytest.raises(MillError, match=r"cannot read .*b\.png"):
        annotated.pixels(images, 0)


BOX = helpers.box(3, 5, [1, 1, 4, 4])


@pytest.mark.parametrize(
    ("boxes", "sections", "message"),
    [
        ([], {}, "has no object to train or test on"),
        ([{**BOX, "iscrowd": 1}], {}, "has no object to train or test on"),
        ([BOX], {"categories": None}, "has no list 'categories'"),
        ([BOX], {"categories": [{"id": 5}]}, "one of its categories has no 'name'"),
        ([{"image_id": 3}], {}, "one of its annotations has no 'category_id'"),
        ([{**BOX, "image_id": 4}], {}, "refers to image 4, which the file does not list"),
        ([{**BOX, "category_id": 4}], {}, "refers to category 4, which the file does not list"),
        ([{**BOX, "bbox": [1, 2, 3]}], {}, r"\[1, 2, 3\], not \[x, y, width, height\]"),
        (
            [{**BOX, "segmentation": {"size": [20, 16], "counts": [320]}}],
            {},
            r"a mask of image 3 is neither polygons in the image nor run",
        ),
        (
            [BOX],
            {"categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "cat"}]},
            "two categories have the name 'cat'",
        ),
        (
            [BOX],
            {"images": [{"id": 3, "file_name": "b.png", "width": "wide", "height": 16}]},
            "image 3 has the width 'wide', not a number of pixels",
        ),
        (
            [BOX],
            {"images": [{"id": 3, "file_name": "b.png", "width": 20, "height": 16}] * 2},
            "two images have the same id",
        ),
    ],
)
def test_wrong_content(
    boxes: list[dict[str, Any]], sections: dict[str, Any], message: str, tmp_path: Path
):
    with pytest.raises(MillError, match=message):
        read(helpers.coco(tmp_path, boxes, **sections))


@pytest.mark.parametrize("name", ["../secret.png", "x/../../secret.png", "{}/secret.png"])
def test_images_elsewhere_are_refused(name: str, tmp_path: Path):
    """An annotation file may come from anybody; the folder of its images is the user's choice."""
    helpers.image(tmp_path / "secret.png")
    images = [{"id": 3, "file_name": name.format(tmp_path), "width": 20, "height": 16}]
    file = helpers.coco(tmp_path, [BOX], images=images)
    with pytest.raises(MillError, match=r"secret\.png', which is not in .*tiny2017: name a folder"):
        read(file)


def test_images_may_be_named_by_whole_paths_in_their_folder(tmp_path: Path):
    name = str(tmp_path / "tiny2017" / "b.png")
    images = [{"id": 3, "file_name": name, "width": 20, "height": 16}]
    file = helpers.coco(tmp_path, [BOX], images=images)
    assert read(file).where(0) == open_images(str(file), "/", "train_images").where(0) == name


def test_files_in_other_formats(tmp_path: Path):
    file = tmp_path / "boxes.json"
    with pytest.raises(MillError, match=r"cannot read .*boxes\.json"):
        read(file)
    file.write_text('{"images": [')
    with pytest.raises(MillError, match=r"boxes\.json is not JSON: .*download it again"):
        read(file)
    file.write_text(json.dumps([1]))
    with pytest.raises(MillError, match="has no list 'images'"):
        read(file)
    with pytest.raises(MillError, match=r"unknown format 'boxes\.csv'"):
        open_images("boxes.csv", None, "train_images")
