"""Sets of shards: how they are named, when their index is believed, and how samples are read."""

from __future__ import annotations

import logging
import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import webdataset
from helpers_shards import (
    COUNT,
    EACH,
    add_indexes,
    check_samples,
    flip_bit,
    image,
    three_shards,
    write_samples,
    write_tar,
)

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.folder import Folder
from patchmill.loaders.sources.shards import index as shard_index
from patchmill.loaders.sources.shards import set_index
from patchmill.loaders.sources.shards.source import Shards


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return three_shards(tmp_path / "shards")


@pytest.mark.parametrize(
    "name",
    ["data-{000000..000002}.tar", "data-*.tar", "{data-000000,data-00000[12]}.tar", ""],
)
def test_ways_to_name_them(shards: Path, name: str) -> None:
    source = open_source(f"{shards}/{name}" if name else shards)
    assert isinstance(source, Shards)
    check_samples(source)
    assert source.where(21) == f"{shards}/data-000001.tar: photos/000021.jpg at byte 3584"


def test_a_list_keeps_its_order(shards: Path) -> None:
    paths = [shards / "data-000002.tar", f"{shards}/data-00000[0].tar"]
    source = open_source(paths)
    assert [source.read(i) for i in (0, 4, 5)] == [image(40), image(44), image(0)]
    assert source.name == f"{paths[0]} and 1 more shards"


def test_one_shard_and_relative_names(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards)
    assert open_source("data-000002.tar").read(0) == image(40)
    assert len(open_source(Path("data-000001.tar"))) == EACH


def test_a_folder_with_images_or_folders_is_not_a_shard_set(shards: Path) -> None:
    (shards / "data-000000.tar.index").touch()
    (shards / ".hidden").mkdir()
    assert isinstance(open_source(shards), Shards)
    (shards / "a").mkdir()
    (shards / "a" / "1.jpg").touch()
    assert isinstance(open_source(shards), Folder)


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "a{1..2}[x].tar", range(3))
    assert len(open_source(path)) == 3


def test_webdataset_reads_the_same_samples(tmp_path: Path) -> None:
    pattern = str(tmp_path / "data-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=20, verbose=0) as writer:
        for i in range(COUNT):
            writer.write({"__key__": f"{i:04d}", "jpg": image(i), "json": {"label": i}})
    source = open_source(tmp_path / "data-{000000..000002}.tar")
    theirs = webdataset.WebDataset(
        str(tmp_path / "data-{000000..000002}.tar"), shardshuffle=False, empty_check=False
    ).to_tuple("jpg")
    assert [source.read(i) for i in range(len(source))] == [data for (data,) in theirs]
    assert source.labels is not None and source.labels.tolist() == list(range(COUNT))


def test_equal_shards_elsewhere_have_the_same_fingerprint(shards: Path, tmp_path: Path) -> None:
    before = open_source(shards).fingerprint
    add_indexes(shards)
    assert open_source(shards).fingerprint == before
    assert open_source(shards.rename(tmp_path / "moved")).fingerprint == before
    assert open_source([*sorted((tmp_path / "moved").glob("*.tar"))[:2]]).fingerprint != before


def test_labels_masks_and_images_that_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_samples(tmp_path / "0.tar", range(2), labels=False)
    write_tar(
        tmp_path / "1.tar", [("a.jpg", b"a"), ("a.mask.png", b"m"), ("b.txt", b""), ("c.cls", b"1")]
    )
    write_tar(tmp_path / "2.tar", [])
    with caplog.at_level(logging.WARNING, "patchmill"):
        source = open_source(tmp_path)
    assert isinstance(source, Shards)
    assert "1 samples without an image are skipped, the first is 'c'" in caplog.text
    assert source.labels is None and source.classes == []
    assert [source.read_mask(i) for i in range(3)] == [None, None, b"m"]


def test_names_of_classes_left_by_a_tool(shards: Path) -> None:
    path = shards / "data-000001.tar"
    letters = list("abcdefghij")
    shard_index.write_index(path, shard_index.scan_shard(path), letters)
    assert open_source(shards).classes == letters
    path = shards / "data-000002.tar"
    shard_index.write_index(path, shard_index.scan_shard(path), letters[::-1])
    with pytest.raises(MillError, match="different lists of classes"):
        open_source(shards)


@pytest.mark.parametrize(
    ("labels", "classes"), [([2, 0], ["0", "1", "2"]), ([-1, 1], ["0", "1"]), ([1 << 40, 0], [])]
)
def test_names_of_classes_otherwise(tmp_path: Path, labels: list[int], classes: list[str]) -> None:
    files = [(f"{i}.cls", b"%d" % label) for i, label in enumerate(labels)]
    path = write_tar(tmp_path / "x.tar", [*files, ("0.jpg", b""), ("1.jpg", b"")])
    source = open_source(path)
    assert source.classes == classes
    assert source.labels is not None and source.labels.tolist() == labels


# ------------------------------------------------------------------------------------ the index


def forbid_scanning(monkeypatch: pytest.MonkeyPatch) -> None:
    def scanned(*_: object) -> None:
        raise AssertionError("a shard was scanned again")

    monkeypatch.setattr(shard_index, "scan_shard", scanned)


def test_an_unchanged_set_is_not_scanned_again(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_source(shards)
    forbid_scanning(monkeypatch)
    after = open_source(f"{shards}/data-{{000000..000002}}.tar")
    assert isinstance(after, Shards) and after.fingerprint == before.fingerprint
    check_samples(after)
    monkeypatch.setattr(set_index, "_assemble", None)
    check_samples(Shards(str(shards)))  # and the whole set's index is not put together again


def test_indexes_beside_the_shards_are_used(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_indexes(shards)
    forbid_scanning(monkeypatch)
    check_samples(Shards(shards))


def test_an_index_that_comes_later_is_noticed(shards: Path) -> None:
    flip_bit(shards, Shards(shards), 3)
    assert Shards(shards).read(3) != image(3)
    (shards / "data-000001.tar.index").write_bytes(b"nonsense")
    assert len(Shards(shards)) == COUNT
    add_indexes(shards)
    assert "checksums" in Shards(shards)._index.columns


def test_the_index_of_another_tar_is_ignored_with_a_warning(
    shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_indexes(shards)
    write_samples(shards / "data-000002.tar", range(40, 43))
    with caplog.at_level(logging.WARNING, "patchmill"):
        source = open_source(shards)
    assert "data-000002.tar.index: it is not the index" in caplog.text
    assert [source.read(i) for i in (0, 42)] == [image(0), image(42)] and len(source) == 43


@pytest.mark.parametrize("change", ["rewritten", "touched", "added", "removed"])
def test_changes_are_noticed(shards: Path, change: str) -> None:
    Shards(shards)
    if change == "rewritten":
        write_samples(shards / "data-000000.tar", range(100, 105))
    elif change == "touched":
        os.utime(shards / "data-000000.tar")
    elif change == "added":
        write_samples(shards / "data-000000b.tar", range(7))
    else:
        (shards / "data-000000.tar").unlink()
    expected = {"rewritten": 30, "touched": 45, "added": 52, "removed": 25}
    source = Shards(shards)
    assert len(source) == expected[change]
    assert all(source.read(i) for i in range(len(source)))


def test_the_index_of_a_shard_that_just_changed_is_not_trusted(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "x.tar", range(5))
    os.utime(path)
    seen = os.stat(path).st_mtime_ns
    assert open_source(path).read(1) == image(1)
    write_samples(path, range(8, 13))  # as many bytes
    os.utime(path, ns=(seen, seen))  # as on a disk with coarse times
    assert open_source(path).read(0) == image(8)


@pytest.mark.parametrize("damage", [b"", b"not an index", None])
def test_a_damaged_index_is_made_again(
    shards: Path, cache_folder: Path, damage: bytes | None
) -> None:
    Shards(shards)
    kept = [*(cache_folder / "shards").glob("*.set"), *(cache_folder / "shards").glob("*.shard")]
    assert len(kept) == 4
    for index in kept:
        index.write_bytes(index.read_bytes()[:-7] if damage is None else damage)
    check_samples(Shards(shards))


def test_without_a_cache_it_works_and_warns(
    shards: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache_folder.write_text("a file where the cache should be")
    with caplog.at_level(logging.WARNING, "patchmill"):
        check_samples(Shards(shards))
    assert "PATCHMILL_CACHE" in caplog.text


def test_processes_that_start_together_index_once(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, scanned, lock = shard_index.scan_shard, [], threading.Lock()

    def counted(path: str) -> shard_index.ShardContents:
        with lock:
            scanned.append(path)
        return scan(path)

    monkeypatch.setattr(shard_index, "scan_shard", counted)
    with ThreadPoolExecutor(4) as pool:  # the lock is held by open file, not by process
        sources = list(pool.map(lambda _: Shards(shards), range(4)))
    assert len(scanned) == 3
    check_samples(sources[3])


def test_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    for number in range(150):
        write_samples(tmp_path / f"{number:03d}.tar", [number])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 70, hard)
    )
    try:
        source = open_source(tmp_path)
        assert [source.read(i) for i in range(150)] == [image(i) for i in range(150)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_index_takes_at_most_40_bytes_a_sample(tmp_path: Path, cache_folder: Path) -> None:
    write_samples(tmp_path / "x.tar", range(3000), **{"mask.png": b"m"})
    add_indexes(tmp_path)
    assert len(open_source(tmp_path / "x.tar")) == 3000
    (index,) = (cache_folder / "shards").glob("*.set")
    assert index.stat().st_size <= 40 * 3000 + 2000  # and what is said once for each shard


# ------------------------------------------------------------------------------------ bad input


def test_a_gap_in_a_range(shards: Path) -> None:
    with pytest.raises(
        MillError, match=r"4 of 7 shards cannot be found: .*data-000003.tar, .*, \.\.\."
    ):
        open_source(f"{shards}/data-{{000000..000006}}.tar")


def test_nothing_is_written_outside(tmp_path: Path, cache_folder: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    escaping = [("../../escaped.jpg", b"a"), (f"{tmp_path}/absolute.jpg", b"b")]
    source = open_source(write_tar(inside / "x.tar", escaping))
    assert [source.read(0), source.read(1)] == [b"a", b"b"]
    assert sorted(os.listdir(tmp_path)) == ["cache", "inside"]
    assert os.listdir(inside) == ["x.tar"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("gone.tar", "1 of 1 shards cannot be found: .*gone.tar"),
        ("gone-*.tar", "no file matches .*gone-"),
        ("gone-{0..2.tar", "braces in .* do not match"),
        ("empty.tar", "there are no images in the 1 shards .*empty.tar"),
        ("nothing.tar", "nothing.tar is empty"),
        ("zipped.tar.gz", r"zipped.tar.gz is compressed with gzip: decompress it \(gzip -d"),
        ("text.tar", "text.tar is not a tar"),
    ],
)
def test_one_sentence(tmp_path: Path, name: str, complaint: str) -> None:
    write_tar(tmp_path / "empty.tar", [("readme.txt", b"nothing")])
    write_samples(tmp_path / "whole.tar", range(3))
    (tmp_path / "nothing.tar").touch()
    (tmp_path / "zipped.tar.gz").write_bytes(b"\x1f\x8b\x08" + bytes(100))
    (tmp_path / "text.tar").write_bytes(b"text" * 1000)
    with pytest.raises(MillError, match=complaint) as caught:
        open_source(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_lists_that_make_no_sense(tmp_path: Path) -> None:
    write_samples(tmp_path / "0.tar", range(3))
    write_samples(tmp_path / "1.tar", range(3), labels=False)
    with pytest.raises(MillError, match="list of shards is empty"):
        Shards([])
    with pytest.raises(MillError, match="the list is empty"):
        open_source([])
    with pytest.raises(MillError, match="holds paths, not 7"):
        open_source([tmp_path / "0.tar", 7])
    with pytest.raises(MillError, match=r"of 1 of 2 shards have no labels, first those of .*1.tar"):
        open_source([tmp_path / "0.tar", tmp_path / "1.tar"])
    with pytest.raises(MillError, match=r"some .* are URLs and some are files"):
        open_source([tmp_path / "0.tar", "https://example.org/1.tar"])
    for url in ("pipe:cat x.tar", "https://example.org/{0..3}.tar", ["s3://bucket/x.tar"]):
        with pytest.raises(MillError, match="is streamed"):
            open_source(url)
