"""Labelled images: folders like ADE20K's and others, scenes, and mistakes in them."""

from __future__ import annotations

from pathlib import Path

import helpers_segment
import numpy as np
import pytest
import torch
from helpers_segment import IGNORED, colours_match
from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.segment.labelled import open_splits, read_mask, reduce_zero


def test_ade20k_has_150_classes_and_zero_is_ignored(tmp_path: Path):
    root = helpers_segment.write_ade20k(tmp_path)
    mask = np.array(Image.open(root / "annotations/training/0.png"))
    mask[0, :5] = 0
    Image.fromarray(mask).save(root / "annotations/training/0.png")
    train, test = open_splits(str(root), "", None)
    assert len(train) == len(test) == 3 and len(train.classes) == len(test.classes) == 150
    assert train.classes[0] == "1"
    first = train.read(0)
    assert first.image.shape == (3, 32, 40) and first.mask.shape == (32, 40)
    assert (first.mask[0, :5] == IGNORED).all()
    assert colours_match(first)[1:].all() and colours_match(test.read(2)).all()


def test_zero_is_a_class_of_other_masks_unless_overridden(tmp_path: Path):
    for split in ("a", "b"):
        helpers_segment.write_pairs(tmp_path / split / "images", tmp_path / split / "masks")
    places = ("", str(tmp_path / "a"), str(tmp_path / "b"))
    train, test = open_splits(*places)
    assert list(train.classes) == list(test.classes) == ["0", "1", "2", "3"]
    assert colours_match(train.read(1)).all()
    reduced, _ = open_splits(*places, True)
    assert list(reduced.classes) == ["1", "2", "3"]
    mask = reduced.read(1).mask.int()
    assert torch.equal(mask == IGNORED, train.read(1).mask == 0)
    assert len(open_splits(*places, "auto", 9).train.classes) == 9


def test_reducing_is_mmsegmentations():
    assert reduce_zero(np.array([0, 1, 150, 254, 255])).tolist() == [255, 0, 149, 253, 255]


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_masks_are_read_as_numbers(mode: str, tmp_path: Path):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.fromarray(values, "L")
        image.putpalette(list(range(255, -1, -1)) * 3)
    elif mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    image.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == values.tolist()


def test_scenes_have_a_background_and_their_classes():
    text = "scenes(count=3, size=32, classes=4)"
    train, test = open_splits("", text, text)
    assert len(train) == 3 and len(train.classes) == 5 and train.classes[0] == "background"
    sample = test.read(1)
    assert sample.image.shape == (3, 32, 32) and sample.mask.shape == (32, 32)
    assert 0 < int(sample.mask.max()) <= 4 and int(sample.mask.min()) == 0


def _ade(path: Path) -> Path:
    return helpers_segment.write_ade20k(path)


def _open(root: Path, **options) -> list:
    train, test = open_splits(str(root), "", None, **options)
    return [data.read(index) for data in (train, test) for index in range(len(data))]


def test_missing_folders_are_named(tmp_path: Path):
    with pytest.raises(MillError, match=r"has no folder images: it must hold images"):
        _open(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(MillError, match=r"has images, but no annotations or masks next to them"):
        _open(tmp_path)
    (tmp_path / "annotations").mkdir()
    with pytest.raises(MillError, match=r"images has no training or train: for other names"):
        _open(tmp_path)
    (tmp_path / "images/training").mkdir()
    with pytest.raises(MillError, match=r"there are images in .*training, but no .*annotations"):
        _open(tmp_path)
    (tmp_path / "annotations/training").mkdir()
    with pytest.raises(MillError, match=r"there are no images in .*: looked for jpg"):
        _open(tmp_path)


def test_images_without_masks_are_counted_and_the_first_is_named(tmp_path: Path):
    root = _ade(tmp_path)
    for index in (1, 2):
        (root / f"annotations/training/{index}.png").unlink()
    with pytest.raises(MillError, match=r"2 of 3 images in .* have no mask .*, 1\.png first"):
        _open(root)


def test_masks_that_do_not_fit_are_named(tmp_path: Path):
    root = _ade(tmp_path)
    path = root / "annotations/validation/1.png"
    Image.fromarray(np.ones((32, 39), np.uint8)).save(path)
    with pytest.raises(MillError, match=r"1\.png has 39 x 32 pixels, but .*1\.png 40 x 32"):
        _open(root)
    Image.fromarray(np.full((32, 40), 151, np.uint8)).save(path)
    expected = r"1\.png has the label 151, but there are 150 classes, from 1 on: set classes=151"
    with pytest.raises(MillError, match=expected):
        _open(root)
    _open(root, classes=151)
    Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(path)
    with pytest.raises(MillError, match=r"1\.png is an image in mode RGB: a mask has one number"):
        _open(root)
    path.write_bytes(b"no image")
    with pytest.raises(MillError, match=r"cannot read the mask .*1\.png"):
        _open(root)


def test_a_damaged_image_is_named(tmp_path: Path):
    root = _ade(tmp_path)
    (root / "images/training/2.png").write_bytes(b"\x89PNG")
    with pytest.raises(MillError, match=r"cannot read the image .*2\.png"):
        _open(root)


@pytest.mark.parametrize("text", ["https://host/train-{000..146}.tar", "shards/train-000.tar"])
def test_data_without_pixel_labels_is_an_error(text: str):
    with pytest.raises(MillError, match=r"data\.train=.* has no pixel labels: name a folder"):
        open_splits("", text, text)
    with pytest.raises(MillError, match=r"there are no test images"):
        open_splits("", text, None)


def test_masks_with_too_many_labels_are_an_error(tmp_path: Path):
    for split in ("a", "b"):
        helpers_segment.write_pairs(tmp_path / split / "images", tmp_path / split / "masks")
    values = np.full((32, 40), 300, np.uint16)
    Image.fromarray(values).save(tmp_path / "a/masks/0.png")
    with pytest.raises(MillError, match=r"labels up to 300: there can be at most 255 classes"):
        open_splits("", str(tmp_path / "a"), str(tmp_path / "b"))
