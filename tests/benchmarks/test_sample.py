"""`Sample`: decodable images only, repeated endlessly."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchmill.benchmarks.lib.sample import Sample, describe
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.folder import Folder


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six files: four JPEGs, a PNG and a broken JPEG."""
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (20 + number, 10), (50 * number, 9, 9)).save(folder / f"{number}.jpg")
    Image.new("RGB", (24, 10)).save(folder / "4.png")
    (folder / "5.jpg").write_bytes(b"\xff\xd8 is not enough")
    return folder


def test_undecodable_images_are_skipped(photos):
    images = Sample(Folder(photos), 100)
    assert images.ids == [0, 1, 2, 3, 4] and images.skipped == 1
    about = describe(images.encoded)
    assert about["count"] == 5 and about["jpegs"] == 4
    assert about["width"] == 22 and about["height"] == 10 and about["kilopixels"] == 0.2


def test_plain_jpegs_only(photos):
    Image.new("CMYK", (24, 10)).save(photos / "6.jpg")
    Image.new("L", (24, 10)).save(photos / "7.jpg")
    images = Sample(Folder(photos), 100, plain=True)
    assert images.ids == [0, 1, 2, 3, 7] and images.skipped == 3
    for path in photos.glob("[012357].jpg"):
        path.unlink()
    with pytest.raises(MillError, match=r"none of 2 images of .* is a plain JPEG"):
        Sample(Folder(photos), 100, plain=True)


def test_a_sample_repeats_endlessly(photos):
    images = Sample(Folder(photos), 100)
    assert len(images) > 10**7 and len(images) % 5 == 0
    assert [images.read(i) for i in range(5, 15)] == images.encoded * 2
    assert images.where(len(images) - 1).endswith("4.png")
    together = images.read_many(np.arange(5, 15), np.empty(1 << 16, np.uint8))
    assert together == images.encoded * 2


def test_a_repeated_sample_ends(photos):
    images = Sample(Folder(photos), 100)
    twelve = images.repeated(12)
    assert len(twelve) == 15 and twelve.read(14) == images.encoded[4]
    assert twelve.fingerprint != images.fingerprint and len(images) > 10**7


def test_a_small_sample_comes_from_all_over(photos):
    images = Sample(Folder(photos), 3)
    assert images.ids == [0, 2, 4]


def test_written_files_hold_the_same_bytes(photos, tmp_path):
    images = Sample(Folder(photos), 100)
    paths = images.write_files(tmp_path)
    assert [Path(path).read_bytes() for path in paths] == images.encoded
    shutil.rmtree(photos)
    with pytest.raises(MillError, match="TMPDIR"):
        images.write_files(photos)


def test_a_sample_without_images_is_an_error(photos):
    for path in photos.glob("[0-4].*"):
        path.unlink()
    with pytest.raises(MillError, match="none of 1 images"):
        Sample(Folder(photos), 100)
