"""Our own reader and writer of FFCV's format; FFCV is not needed here."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers_beton import damage_record, encode, overwrite_image, patch_bytes, pixels, write_beton
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import BadImage, Decoder, decode
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.beton import layout
from patchmill.loaders.sources.beton.source import Beton
from patchmill.loaders.sources.beton.writer import BetonWriter

IMAGES = [encode(i) for i in range(10)]
FIELD_AT = layout.HEADER.itemsize


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_beton(tmp_path / "some.beton", IMAGES)


# ------------------------------------------------------------------------------------------ reading


def test_round_trip(path: Path) -> None:
    source = Beton(path)
    assert [source.read(i) for i in range(len(source))] == IMAGES
    assert source.labels is not None and source.labels.tolist() == [i % 3 for i in range(10)]
    assert source.classes == ["a", "b", "c"]
    assert source.checksums is not None
    assert source.checksums.tolist() == [zlib.crc32(data) for data in IMAGES]
    assert source.where(3).startswith(f"{os.path.realpath(path)}, sample 3 at byte ")


def test_open_source_accepts_a_path(path: Path) -> None:
    assert open_source(str(path)).read(4) == IMAGES[4]


def test_images_that_ffcv_cannot_decode_are_stored_as_pixels(tmp_path: Path) -> None:
    source = Beton(write_beton(tmp_path / "a.beton", [encode(1, "PNG"), IMAGES[2]]))
    assert source.read(0).startswith(b"P6 ")
    assert (decode(source.read(0)) == pixels(1)).all()
    assert source.read(1) == IMAGES[2]


def test_masks_are_kept(tmp_path: Path) -> None:
    with BetonWriter(tmp_path / "m.beton", 3, masks=True) as writer:
        for i in range(3):
            writer.add(IMAGES[i], i, b"" if i == 1 else encode(i + 5, "PNG", "L"))
    source = Beton(tmp_path / "m.beton")
    assert source.masked
    assert [source.read(i) for i in range(3)] == IMAGES[:3]
    for i in (0, 2):
        grey = np.asarray(Image.fromarray(pixels(i + 5)).convert("L"))
        assert (source.mask(i) == grey).all()
    assert source.mask(1) is None


def test_masks_with_colours_are_an_error_that_says_where(tmp_path: Path) -> None:
    with BetonWriter(tmp_path / "m.beton", 1, masks=True) as writer:
        writer.add(IMAGES[0], 0, encode(1, "PNG"))
    with pytest.raises(MillError, match=r"m\.beton, sample 0 at byte \d+ has 3 channels"):
        Beton(tmp_path / "m.beton").mask(0)


def test_without_masks(path: Path) -> None:
    source = Beton(path)
    assert not source.masked
    assert source.mask(0) is None


def test_allocations_in_any_order(path: Path) -> None:
    """Several processes of FFCV's writer leave them in any order."""
    at = int(np.fromfile(path, layout.HEADER, 1)[0]["allocations"])
    table = np.fromfile(path, layout.ALLOCATION, offset=at)
    patch_bytes(path, at, table[np.random.default_rng(0).permutation(10)].tobytes())
    source = Beton(path)
    assert [source.read(i) for i in range(10)] == IMAGES


def test_the_fingerprint_is_of_the_list_of_samples(tmp_path: Path) -> None:
    same = [Beton(write_beton(tmp_path / f"{i}.beton", IMAGES)).fingerprint for i in range(2)]
    other = Beton(write_beton(tmp_path / "b.beton", IMAGES[::-1])).fingerprint
    assert same[0] == same[1] != other


def test_labels_number_their_classes(tmp_path: Path) -> None:
    with BetonWriter(tmp_path / "n.beton", 2) as writer:
        writer.add(IMAGES[0], 3)
        writer.add(IMAGES[1], 1)
    assert Beton(tmp_path / "n.beton").classes == ["0", "1", "2", "3"]


@given(st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_raw_pixels_travel_unchanged(height: int, width: int, kept: bool) -> None:
    wanted = np.random.default_rng(height * 31 + width).integers(0, 256, (height, width, 3))
    data = b"P6 %d %d 255\n" % (width, height) + wanted.astype(np.uint8).tobytes()
    found = Decoder()(data) if kept else decode(data)
    assert found.flags.writeable and found.flags.c_contiguous
    assert (found == wanted).all()


def test_a_ppm_of_another_length_is_bad() -> None:
    with pytest.raises(BadImage):
        decode(b"P6 4 4 255\n" + bytes(47))


# ---------------------------------------------------------------------------- what can be wrong


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(MillError, match=r"there is no file .*none\.beton"):
        Beton(tmp_path / "none.beton")
    with pytest.raises(MillError, match="is a folder"):
        Beton(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated(path: Path, share: float) -> None:
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(MillError, match=r"truncated|too short"):
        Beton(path)


def test_every_cut_is_noticed(path: Path) -> None:
    """The file ends with the allocation table, whose length is not stored anywhere."""
    size = path.stat().st_size
    for cut in (1, 8, 23, 24, 25, 48, 24 * 10 - 1):
        os.truncate(path, size - cut)
        with pytest.raises(MillError, match="truncated"):
            Beton(path)
        os.truncate(path, size)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, struct.pack("<H", 3), "version 2"),
        (2, struct.pack("<H", 60_000), "truncated|damaged"),
        (8, struct.pack("<Q", 2**60), "do not fit into it"),
        (16, struct.pack("<Q", 0), "not written completely"),
        (16, struct.pack("<Q", 2**50), "truncated"),
        (FIELD_AT, b"\xff", "custom type"),
        (FIELD_AT, b"\x00", "no images; its fields are: image, label"),
        (FIELD_AT + layout.FIELD.itemsize + 1, b"image\0", "the same name"),
        (FIELD_AT + 17 + 8, struct.pack("<Q", 2**60), "checksums"),
    ],
)
def test_damaged(path: Path, at: int, value: bytes, says: str) -> None:
    with pytest.raises(MillError, match=says):
        Beton(patch_bytes(path, at, value))


def test_fields_can_be_named(path: Path) -> None:
    assert Beton(path, image="image", label="label").read(1) == IMAGES[1]
    for settings in ({"image": "label"}, {"label": "classes"}, {"mask": "label"}):
        with pytest.raises(MillError, match="no field"):
            Beton(path, **settings)


def test_ambiguous_fields_must_be_named(tmp_path: Path) -> None:
    path = write_beton(tmp_path / "a.beton", IMAGES, masks=True)
    mask_at = FIELD_AT + 2 * layout.FIELD.itemsize
    patch_bytes(path, mask_at, bytes([layout.INT_TYPE]) + b"age\0")
    patch_bytes(path, mask_at - layout.FIELD.itemsize + 1, b"kind\0\0")
    with pytest.raises(MillError, match=r"\(kind, age\): choose one, as in .*label='kind'"):
        Beton(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"start": 12_345}, "nothing was stored at byte 12345"),
        ({"mode": 7}, "unknown mode"),
        ({"mode": layout.RAW}, "raw pixels"),
    ],
)
def test_a_damaged_sample_is_an_oserror(path: Path, change: dict[str, int], says: str) -> None:
    damage_record(path, 6, change)
    source = Beton(path)
    assert source.read(5) == IMAGES[5]
    with pytest.raises(OSError, match=says):
        source.read(6)


def test_truncated_while_open(path: Path) -> None:
    source = Beton(path)
    first = source.read(0)
    os.truncate(path, 1 << 23)
    with pytest.raises(OSError, match="truncated"):
        source.read(0)
    assert first == IMAGES[0]


# ------------------------------------------------------------------------------------------ writing


def test_the_same_samples_give_the_same_file(path: Path, tmp_path: Path) -> None:
    assert write_beton(tmp_path / "again.beton", IMAGES).read_bytes() == path.read_bytes()


def test_samples_do_not_cross_pages(tmp_path: Path) -> None:
    big = b"".join([b"P6 800 800 255\n", bytes(800 * 800 * 3)])
    source = Beton(write_beton(tmp_path / "big.beton", [big] * 4, page_size=1 << 21))
    assert [source.read(i) for i in range(4)] == [big] * 4
    starts = source._images["start"]
    assert (starts >> 21 == (starts + 800 * 800 * 3 - 1) >> 21).all()


def test_fewer_samples_than_announced(tmp_path: Path) -> None:
    with BetonWriter(tmp_path / "a.beton", 5) as writer:
        with pytest.raises(BadImage):
            writer.add(b"no image", 0)
        writer.add(IMAGES[0], 7)
    source = Beton(tmp_path / "a.beton")
    assert len(source) == 1 and source.read(0) == IMAGES[0]
    assert source.labels is not None and source.labels.tolist() == [7]


def test_an_exception_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), BetonWriter(tmp_path / "a.beton", 5) as writer:
        writer.add(IMAGES[0], 0)
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_too_many_too_large_not_writable(tmp_path: Path) -> None:
    big = b"P6 1000 1000 255\n" + bytes(3_000_000)
    with BetonWriter(tmp_path / "a.beton", 1, page_size=1 << 21) as writer:
        with pytest.raises(MillError, match="use a page_size of 4194304"):
            writer.add(big, 0)
        writer.add(IMAGES[0], 0)
        with pytest.raises(MillError, match="there are more"):
            writer.add(IMAGES[0], 0)
    with pytest.raises(MillError, match="cannot write"):
        BetonWriter(tmp_path / "no" / "a.beton", 1)
    with pytest.raises(MillError, match="power of two"):
        BetonWriter(tmp_path / "b.beton", 1, page_size=3_000_000)


def test_overwritten_bytes_do_not_match_their_checksum(path: Path) -> None:
    overwrite_image(path, 2, IMAGES[2][:-3] + b"xyz")
    source = Beton(path)
    assert source.checksums is not None
    wrong = [i for i in range(10) if zlib.crc32(source.read(i)) != source.checksums[i]]
    assert wrong == [2]
