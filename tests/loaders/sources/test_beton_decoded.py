"""Raw images of a .beton, which the source holds decoded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers_beton import damage_record, encode, patch_bytes, pixels, write_beton

from patchmill.loaders.sources.beton import layout
from patchmill.loaders.sources.beton.source import Beton


def test_raw_images_are_there_decoded_and_jpegs_are_not(tmp_path: Path) -> None:
    images = [encode(i, "PNG" if i % 3 else "JPEG") for i in range(7)]
    source = Beton(write_beton(tmp_path / "a.beton", images))
    decoded = source.decoded_images()
    assert decoded is not None and decoded is source.decoded_images()
    for i in range(7):
        image = decoded.image(i)
        if i % 3:
            assert image is not None and (image == pixels(i)).all()
        else:
            assert image is None


def test_without_raw_images_none_are_decoded(tmp_path: Path) -> None:
    jpegs = write_beton(tmp_path / "a.beton", [encode(i) for i in range(4)])
    assert Beton(jpegs).decoded_images() is None
    assert Beton(write_beton(tmp_path / "none.beton", [])).decoded_images() is None


def test_raw_images_with_allocations_in_any_order(tmp_path: Path) -> None:
    path = write_beton(tmp_path / "a.beton", [encode(i, "PNG") for i in range(10)])
    at = int(np.fromfile(path, layout.HEADER, 1)[0]["allocations"])
    table = np.fromfile(path, layout.ALLOCATION, offset=at)
    patch_bytes(path, at, table[np.random.default_rng(0).permutation(10)].tobytes())
    decoded = Beton(path).decoded_images()
    assert decoded is not None
    for i in range(10):
        assert (decoded.image(i) == pixels(i)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"start": 12_345},
        {"start": 2**64 - 1},
        {"mode": 7},
        {"width": 3},
        {"width": 0},
        {"height": 65_535, "width": 65_535},
    ],
)
def test_a_damaged_raw_sample_is_not_there(tmp_path: Path, change: dict[str, int]) -> None:
    """Reading it then says why; the others are there."""
    path = write_beton(tmp_path / "a.beton", [encode(i, "PNG") for i in range(3)])
    damage_record(path, 1, change)
    source = Beton(path)
    decoded = source.decoded_images()
    assert decoded is not None
    assert [decoded.image(i) is not None for i in range(3)] == [True, False, True]
    with pytest.raises(OSError):
        source.read(1)


def test_raw_images_of_a_file_that_is_cut_short_are_gone(tmp_path: Path) -> None:
    path = write_beton(tmp_path / "a.beton", [encode(i, "PNG") for i in range(3)])
    source = Beton(path)
    assert source.decoded_images() is not None
    os.truncate(path, 100)
    assert source.decoded_images() is None
