"""Samples read out of shards: damaged ones, shards that change, and few files kept open."""

from __future__ import annotations

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers_shards import (
    COUNT,
    add_indexes,
    backdate,
    check_samples,
    flip_bit,
    image,
    three_shards,
    write_samples,
)

from patchmill.loaders.files import open_files
from patchmill.loaders.files.open_files import OpenFiles
from patchmill.loaders.sources.shards.source import Shards


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return three_shards(tmp_path / "shards")


def test_a_flipped_bit_is_an_error_where_there_are_checksums(shards: Path) -> None:
    add_indexes(shards)
    (shards / "data-000001.tar.index").unlink()
    source = Shards(shards)
    for index in (3, 23):
        flip_bit(shards, source, index)
    with pytest.raises(OSError, match=r"checksum .* differs .* changed or damaged"):
        source.read(3)
    assert source.read(23) == image(23).replace(b"i", b"I", 1)
    assert source.read(4) == image(4)


def test_damaged_masks(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "x.tar", range(2), **{"mask.png": b"mask"})
    add_indexes(tmp_path)
    source = Shards(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"mask\0", b"musk\0", 3))
    backdate(path)
    with pytest.raises(OSError, match="checksum"):
        source.read_mask(1)


@pytest.mark.parametrize("change", ["truncated", "replaced", "gone"])
def test_a_shard_that_changes_during_a_run_is_an_os_error(shards: Path, change: str) -> None:
    source, path = Shards(shards), shards / "data-000001.tar"
    assert source.read(0) == image(0)
    if change == "truncated":
        os.truncate(path, 4000)
    elif change == "replaced":
        write_samples(path, range(70, 90))
        os.utime(path)
    else:
        path.unlink()
    with pytest.raises(OSError):
        source.read(39)
    assert str(path) in source.where(39) and "at byte" in source.where(39)
    source.prefetch(np.arange(COUNT))
    assert source.read(1) == image(1)


def test_truncated_while_open(shards: Path) -> None:
    source = Shards(shards)
    assert source.read(39) == image(39)
    os.truncate(shards / "data-000001.tar", 4000)
    with pytest.raises(OSError, match=r"ends .* bytes before"):
        source.read(39)


def test_prefetch_changes_nothing(shards: Path) -> None:
    source = Shards(shards)
    source.prefetch(np.array([44, 0, 7, 21], np.int64))
    source.prefetch(np.array([], np.int64))
    check_samples(source)


def test_few_files_stay_open_while_many_threads_read(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "_MOST", 1)
    source = Shards(shards)
    before = len(os.listdir("/proc/self/fd"))
    ids = np.random.default_rng(0).integers(0, COUNT, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, ids)) == [image(i) for i in ids]
    assert len(source._open_files) == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_open_files_are_closed_with_the_source(shards: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    source = Shards(shards)
    check_samples(source)
    del source
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_limit_follows_what_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def limit() -> int:
        return OpenFiles(lambda _: b"", lambda *_: None)._limit

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    assert limit() == 128
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert limit() == 4096
