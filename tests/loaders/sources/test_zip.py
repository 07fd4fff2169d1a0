"""Zips: the same samples as the unpacked folder, and what can be wrong with a zip."""

from __future__ import annotations

import logging
import os
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers_archives import CLASSES, check_like_folder, photo, photos, write_folder, write_zip
from helpers_shards import backdate
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import cache, columns
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.archives.zip_file import KIND, Zip
from patchmill.loaders.sources.folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "folder", photos())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("above", ["", "dataset/train/", "./"])
def test_like_the_unpacked_folder(tmp_path: Path, folder: Path, method: int, above: str) -> None:
    files = {above + name: content for name, content in reversed(photos().items())}
    extra = {"README.txt": b"text", "__MACOSX/cat/._0.jpg": b"x", ".hidden/1.jpg": b"x"}
    path = write_zip(tmp_path / "photos.zip", files | extra, method)
    for _ in range(2):  # listed, and from the cache
        source = open_source(path)
        assert isinstance(source, Zip)
        check_like_folder(source, folder)
        assert source.where(0) == f"{path}: {above}cat/0.jpg"


def test_a_folder_in_a_zip(tmp_path: Path, folder: Path) -> None:
    both = {
        f"{split}/{name}": content
        for split in ("train", "val")
        for name, content in photos().items()
    }
    path = write_zip(tmp_path / "photos.zip", both)
    check_like_folder(open_source(f"{path}/val"), folder)
    check_like_folder(open_source(f"{path}/train/"), folder)
    assert open_source(path).classes == ["train", "val"]
    with pytest.raises(MillError, match=r"no images in the folder 'test' of .*photos.zip/test"):
        open_source(path / "test")


def test_without_folders_there_are_no_labels(tmp_path: Path) -> None:
    flat = {f"photos/{n}.jpg": photo(n) for n in range(4)}
    source = open_source(write_zip(tmp_path / "photos.zip", flat))
    assert source.labels is None and source.classes == [] and len(source) == 4


def test_images_beside_class_folders_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_zip(tmp_path / "photos.zip", photos() | {"stray.jpg": photo(99)})
    with caplog.at_level(logging.WARNING, "patchmill"):
        source = open_source(path)
    assert source.labels is None and len(source) == 10
    assert "have no labels: some lie in class folders, and others outside, in none" in caplog.text


def test_zip64_and_bytes_in_front_of_the_zip(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in photos().items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    check_like_folder(open_source(backdate(path)), folder)


def test_headers_longer_than_expected(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in photos().items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.extra = struct.pack("<HH", 0x9999, 600) + bytes(600)
            archive.writestr(info, content)
    check_like_folder(open_source(backdate(path)), folder)


@settings(deadline=None, max_examples=20)
@given(contents=st.lists(st.binary(max_size=3000), min_size=1, max_size=6), stored=st.booleans())
def test_any_content(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], stored: bool
) -> None:
    method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    files = {f"ä{n}.jpg": content for n, content in enumerate(contents)}
    source = open_source(write_zip(tmp_path_factory.mktemp("zip") / "x.zip", files, method))
    assert [source.read(n) for n in range(len(contents))] == contents


def test_threads_read_at_once(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "photos.zip", photos())
    source = open_source(path)
    expected = [source.read(i) for i in range(len(source))]
    with ThreadPoolExecutor(8) as pool:
        ids = [i % len(source) for i in range(200)]
        assert list(pool.map(source.read, ids)) == [expected[i] for i in ids]


def test_a_later_member_of_the_same_name_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.jpg", b"old")
        with pytest.warns(UserWarning):
            archive.writestr("1.jpg", b"new")
    source = open_source(tmp_path / "x.zip")
    assert len(source) == 1 and source.read(0) == b"new"


def test_a_changed_zip_is_listed_again(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "photos.zip", photos())
    before = open_source(path)
    files = {name: content for name, content in photos().items() if "cat" not in name}
    write_zip(path, files)
    assert open_source(path).classes == CLASSES[1:]
    with pytest.raises(OSError, match="the zip was changed since it was listed"):
        before.read(0)


def test_a_cached_listing_of_no_state_is_made_again(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "photos.zip", photos())
    backdate(path)
    before = [open_source(path).where(id) for id in range(len(open_source(path)))]
    (listing,) = (cache.root() / "archives").iterdir()
    found = columns.read(listing, KIND)
    stateless = {key: value for key, value in found.meta.items() if key != "state"}
    columns.write(listing, KIND, found.columns, stateless)
    assert [open_source(path).where(id) for id in range(len(before))] == before


def test_a_damaged_member_is_a_bad_sample(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "photos.zip", photos(), zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(photos()["cat/1.jpg"]) + 50] ^= 1
    data[data.index(b"PK\3\4")] ^= 1
    path.write_bytes(data)
    source = open_source(backdate(path))
    with pytest.raises(OSError, match=r"checksum [0-9a-f]{8} differs from [0-9a-f]{8}"):
        source.read(1)
    with pytest.raises(OSError, match="no member at byte 0: the zip is damaged"):
        source.read(0)
    assert source.read(2) == photos()["cat/2.jpg"]


def test_a_member_that_cannot_be_inflated_is_a_bad_sample(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "photos.zip", {"1.jpg": bytes(2000), "2.jpg": b"ok" * 100})
    data = bytearray(path.read_bytes())
    start = 30 + len("1.jpg")
    data[start : start + 4] = b"\xff" * 4
    path.write_bytes(data)
    source = open_source(backdate(path))
    with pytest.raises(OSError, match=r"it cannot be decompressed: .*invalid"):
        source.read(0)
    assert source.read(1) == b"ok" * 100


def test_sizes_are_limits(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "photos.zip", {"1.jpg": bytes(2000)})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 24  # size in the directory
    data[at : at + 4] = struct.pack("<I", 100)
    path.write_bytes(data)
    with pytest.raises(OSError, match="decompresses to 101 or more bytes, not to 100"):
        open_source(backdate(path)).read(0)


def _encrypted(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (
            "cut",
            r"photos.zip is not a complete zip: File is not a zip file; fetch or pack it again",
        ),
        ("text", r"is not a complete zip"),
        ("empty file", r"is not a complete zip"),
        ("no images", r"there are no images in .*photos.zip: looked for files ending in jpg"),
        (
            "bzip2",
            r"1 of 1 images in .* are compressed with bzip2, .*: unpack it, or pack",
        ),
        ("encrypted", r"1 of 9 images in .* are encrypted, first 'cat/0.jpg': unpack it with its"),
        ("gone", r"cannot open .*photos.zip: No such file or directory"),
    ],
)
def test_one_sentence(tmp_path: Path, damage: str, complaint: str) -> None:
    path = tmp_path / "photos.zip"
    if damage == "bzip2":
        write_zip(path, {"1.jpg": bytes(999)}, zipfile.ZIP_BZIP2)
    elif damage == "no images":
        write_zip(path, {"readme.txt": b"x"})
    elif damage in ("cut", "encrypted"):
        write_zip(path, photos())
        os.truncate(path, 3000) if damage == "cut" else _encrypted(path)
    elif damage != "gone":
        path.write_bytes(b"text" * 99 if damage == "text" else b"")
    with pytest.raises(MillError, match=complaint) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, 10_000), junk=st.binary(min_size=1, max_size=8))
def test_random_damage_is_an_error_of_the_zip_or_of_a_sample(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes
) -> None:
    path = write_zip(tmp_path_factory.mktemp("zip") / "x.zip", photos())
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at : at + len(junk)] = junk
    path.write_bytes(data)
    try:
        source = open_source(path)
    except MillError as error:
        assert "\n" not in str(error)
        return
    for i in range(len(source)):
        try:
            source.read(i)
        except OSError as error:
            assert "\n" not in str(error)


def test_a_folder_called_like_a_zip_is_a_folder(tmp_path: Path) -> None:
    assert isinstance(open_source(write_folder(tmp_path / "photos.zip", photos())), Folder)


def test_a_folder_that_holds_an_archive_names_it(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "photos.zip", photos())
    with pytest.raises(MillError, match=f"; to read photos.zip, name it: {path}"):
        open_source(tmp_path)
