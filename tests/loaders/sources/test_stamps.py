"""Stamps of samples: the same at every start, and others once the samples have changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_archives import photo, write_folder, write_lmdb, write_zip
from helpers_beton import write_beton
from helpers_parquet import write_images
from helpers_shards import add_indexes, write_tar

from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.decoded.opening import open_store
from patchmill.loaders.files import stamps
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.subset import Subset

COUNT, CHANGED = 6, 2
LATER = (1e9 + 7.25, 1e9 + 7.25)


def photos(changed: bool) -> list[bytes]:
    """Photos as JPEGs, of which one is another one after the change, in as many bytes."""
    images = [photo(number) for number in range(COUNT)]
    if changed:
        images[CHANGED] = photo(100)
    longest = max(map(len, [photo(100), *map(photo, range(COUNT))]))
    return [image.ljust(longest, b"\0") for image in images]


versions: dict[Path, int] = {}  # how often a file was written, by the test's folder
time_of: dict[Path, int] = {}


def backdate(path: Path, place: Path) -> None:
    """Set the modification time to long ago, but later than that of what was there before."""
    versions[place] = versions.get(place, 0) + 1
    os.utime(path, (1e9 + versions[place] + 0.25,) * 2)


def folder(place: Path, images: list[bytes]) -> Any:
    for number, image in enumerate(images):
        path = place / "data" / f"{number}.jpg"
        if not path.exists() or path.read_bytes() != image:
            write_folder(place / "data", {path.name: image})
            backdate(path, place)
    return str(place / "data")


def path_list(place: Path, images: list[bytes]) -> Any:
    folder(place, images)
    lines = [f"data/{number}.jpg" for number in range(len(images))]
    (place / "list.csv").write_text("\n".join(["path", *lines]))
    return str(place / "list.csv")


def one_file(make: Callable[[Path, list[bytes]], Any]) -> Callable[[Path, list[bytes]], Any]:
    def made(place: Path, images: list[bytes]) -> Any:
        path = place / "data"
        path.mkdir(exist_ok=True)
        known = {file: file.read_bytes() for file in path.iterdir()}
        file = make(path, images)
        if file.read_bytes() == known.get(file):
            os.utime(file, ns=(time_of[file], time_of[file]))
        else:
            backdate(file, place)
            time_of[file] = file.stat().st_mtime_ns
        return str(file)

    return made


@one_file
def archive(path: Path, images: list[bytes]) -> Path:
    return write_zip(path / "a.zip", {f"{n}.jpg": image for n, image in enumerate(images)})


@one_file
def beton(path: Path, images: list[bytes]) -> Path:
    return write_beton(path / "a.beton", images)


@one_file
def shard(path: Path, images: list[bytes]) -> Path:
    return write_tar(path / "a.tar", [(f"{n}.jpg", image) for n, image in enumerate(images)])


def shard_with_checksums(place: Path, images: list[bytes]) -> Any:
    made = shard(place, images)
    add_indexes(place / "data")
    return made


def lmdb_file(place: Path, images: list[bytes]) -> Any:
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    write_lmdb(place / "a.lmdb", {f"{n:03}": image for n, image in enumerate(images)})
    return str(place / "a.lmdb")


def parquet(place: Path, images: list[bytes]) -> Any:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    return one_file(lambda path, images: write_images(path / "a.parquet", images))(place, images)


def objects(place: Path, images: list[bytes]) -> Any:
    return images


KINDS = [folder, path_list, archive, beton, shard, shard_with_checksums, lmdb_file, parquet]


@pytest.mark.parametrize("make", KINDS)
def test_stamps_change_with_the_samples(
    make: Callable[[Path, list[bytes]], Any], tmp_path: Path
) -> None:
    before, again = (all_stamps(make(tmp_path, photos(False))) for _ in range(2))
    if make is not lmdb_file:  # which has been written to twice
        assert before == again
    assert all(0 < stamp < 2**64 for stamp in before)
    after = all_stamps(make(tmp_path, photos(True)))
    assert after[CHANGED] != again[CHANGED]


@pytest.mark.parametrize("make", [*KINDS, objects])
def test_a_cache_never_shows_what_an_image_was_before(
    make: Callable[[Path, list[bytes]], Any], tmp_path: Path
) -> None:
    for changed in (False, True, False):
        source = open_source(make(tmp_path, photos(changed)))
        store = open_store(f"disk:{tmp_path}/store:1MB", source)
        assert store is not None
        for id in range(COUNT):
            image = store.image(id)
            data, stamp = store.read(id)
            if image is not None:
                np.testing.assert_array_equal(image, decode(data))
            store.offer(id, decode(data), stamp)
        del store, source


def test_a_subset_has_the_stamps_of_its_samples(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, photos(False)))
    os.utime(tmp_path / "data" / "4.jpg", LATER)
    assert Subset(source, [4, 1]).stamp(0) == source.stamp(4) != source.stamp(1)


def test_a_file_that_just_changed_has_no_sure_stamp(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    for age, sure in ((0, False), (0.02, False), (0.3, True), (60, True), (-0.01, False)):
        at = int((time.time() - age) * 1e9) | 1  # in a file system with fine times
        os.utime(path, ns=(at, at))
        assert (stamps.of_file(os.stat(path)) != stamps.UNSURE) == sure
    for age, sure in ((0, False), (1, False), (3, True)):
        at = (int(time.time()) - age) * 10**9
        os.utime(path, ns=(at, at))
        assert (stamps.of_file(os.stat(path)) != stamps.UNSURE) == sure


def all_stamps(data: Any) -> list[int]:
    source = open_source(data)
    return [source.stamp(id) or 0 for id in range(len(source))]
