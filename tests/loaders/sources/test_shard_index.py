"""Grouping of members into samples, and validation of shard indexes."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import webdataset
from helpers_shards import Files, backdate, image, write_samples, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import columns
from patchmill.loaders.sources.shards import index as shard_index
from patchmill.loaders.sources.shards import samples


def index(path: Path, files: Files) -> dict[str, list[int]]:
    contents = shard_index.scan_shard(write_tar(path, files))
    made = shard_index.build_index(str(path), contents, 0, 0)
    return {name: column.tolist() for name, column in made.columns.items()}


def names(path: Path, files: Files) -> list[bytes]:
    return [sample.name for sample in shard_index.scan_shard(write_tar(path, files)).samples]


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (["a.jpg", "b.PNG", "c.Tiff"], ["a.jpg", "b.PNG", "c.Tiff"]),
        (["d/a.jpg", "e/a.jpg"], ["d/a.jpg", "e/a.jpg"]),
        (["x.y/a.jpg", "./b.jpg"], ["x.y/a.jpg", "./b.jpg"]),
        (["a.png", "a.jpg", "a.mask.png", "a.seg.png"], ["a.jpg"]),
        (["a.v2.jpg", "a.mask.png"], ["a.v2.jpg"]),
        (["a.jpg", "a.thumb.jpg"], ["a.jpg"]),
        (["a.jpg", "._a.jpg", "d/.b.jpg", "__meta__/c.jpg"], ["a.jpg"]),
        (["../a.jpg", "/etc/b.jpg"], ["../a.jpg", "/etc/b.jpg"]),
        (["a.jpg", "README", "list.txt", "b.jpg.part"], ["a.jpg"]),
    ],
)
def test_images(tmp_path: Path, files: list[str], taken: list[str]) -> None:
    found = names(tmp_path / "x.tar", [(name, b"x") for name in files])
    assert found == [name.encode() for name in taken]
    assert os.listdir(tmp_path) == ["x.tar"]


keys = st.text("ab/.", min_size=1, max_size=4).filter(lambda key: not key.startswith("/"))
endings = st.sampled_from(["jpg", "JPG", "png", "cls", "mask.png", "txt", "v2.jpg"])


@settings(deadline=None)
@given(st.lists(st.tuples(keys, endings), unique=True, max_size=10))
def test_keys_are_those_of_webdataset(members: list[tuple[str, str]]) -> None:
    for key, ending in members:
        name = f"{key}.{ending}"
        theirs = webdataset.tariterators.base_plus_ext(name)
        ours = samples.split_name(name.encode())
        if ours is not None and not name.rpartition("/")[2].startswith("."):
            assert (ours[0].decode(), ours[1]) == (theirs[0], theirs[1].lower())


def test_members_in_any_order(tmp_path: Path) -> None:
    files = [
        ("b.jpg", b"bb"),
        ("a.cls", b"1"),
        ("a.mask.png", b"m"),
        ("b.cls", b"2"),
        ("a.jpg", b"a"),
    ]
    found = index(tmp_path / "x.tar", files)
    assert found == {
        "offsets": [512, 9 * 512],
        "sizes": [2, 1],
        "labels": [2, 1],
        "mask_offsets": [0, 5 * 512],
        "mask_sizes": [0, 1],
    }


@pytest.mark.parametrize(
    ("members", "label"),
    [
        ({"cls": b"7"}, 7),
        ({"cls": b" -3\n"}, -3),
        ({"json": b'{"label": 5, "class": 6}'}, 5),
        ({"json": b'{"class": 6}'}, 6),
        ({"json": b'{"label": 5}', "cls": b"4"}, 4),
        ({"cls": b"4", "json": b'{"label": 5}'}, 4),
        ({"json": b'{"label": "cat", "class": true}'}, None),
        ({"json": b"[1]"}, None),
        ({"txt": b"7"}, None),
    ],
)
def test_labels(tmp_path: Path, members: dict[str, bytes], label: int | None) -> None:
    files = [("a.jpg", b"x"), *((f"a.{ending}", data) for ending, data in members.items())]
    found = index(tmp_path / "x.tar", files)
    assert found.get("labels") == (None if label is None else [label])


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (
            {"a.jpg": b"x", "a.cls": b"cat"},
            r"'a.cls' of the shard .*x.tar is not an integer: 'cat'",
        ),
        ({"a.jpg": b"x", "a.cls": b"9" * 30}, "more than 64 bits"),
        ({"a.jpg": b"x", "a.json": b"{"}, "'a.json' .* is not JSON"),
        ({"a.jpg": b"x", "a.json": b"[" * 100_000}, "'a.json' .* is not JSON"),
        ({"a.1.jpg": b"x", "a.2.jpg": b"x"}, r"'a' .* has 2 images \(.1.jpg, .2.jpg\)"),
        (
            {"a.jpg": b"x", "b.jpg": b"x", "b.cls": b"1"},
            r"1 of 2 samples .* no label, first 'a.jpg'",
        ),
    ],
)
def test_what_cannot_be_a_sample(tmp_path: Path, files: dict[str, bytes], complaint: str) -> None:
    with pytest.raises(MillError, match=complaint) as caught:
        index(tmp_path / "x.tar", files.items())
    assert "\n" not in str(caught.value)


def test_a_member_that_is_there_twice(tmp_path: Path) -> None:
    with pytest.raises(MillError, match=r"'a.JPG' of the shard .*x.tar occurs twice"):
        index(tmp_path / "x.tar", [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.JPG", b"3")])


@pytest.mark.parametrize("cut", [100, 512 + 10, 3 * 512 + 3])
def test_a_truncated_shard_is_named(tmp_path: Path, cut: int) -> None:
    path = write_tar(tmp_path / "x.tar", [("a.cls", b"1"), ("a.jpg", b"x" * 3000)])
    os.truncate(path, cut if cut != 512 + 10 else 512)
    with pytest.raises(MillError, match=r"the shard .*x.tar is truncated: .* byte"):
        shard_index.scan_shard(path)


def test_a_missing_shard_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MillError, match=r"cannot open the shard .*gone.tar: No such file"):
        shard_index.scan_shard(tmp_path / "gone.tar")
    with pytest.raises(MillError, match=r"cannot open the shard .*: it is a folder"):
        shard_index.scan_shard(tmp_path)


# ------------------------------------------------------------------------------ beside the shard


def test_written_and_read(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "x.tar", range(20), **{"mask.png": b"mask"})
    contents = shard_index.scan_shard(path, checksums=True)
    shard_index.write_index(path, contents, [f"class {n}" for n in range(10)])
    found = shard_index.read_index(path)
    assert found["checksums"].tolist() == [zlib.crc32(image(n)) for n in range(20)]
    assert found["mask_checksums"].tolist() == [zlib.crc32(b"mask")] * 20
    assert found["labels"].tolist() == [n % 10 for n in range(20)]
    assert found.meta["members"] == 60 and found.meta["classes"][9] == "class 9"
    assert {n: c.dtype.str for n, c in found.columns.items()} == shard_index.DTYPES
    assert sum(column.itemsize for column in found.columns.values()) <= 40


def test_a_tool_may_say_what_it_wrote(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "x.tar", range(9))
    found = shard_index.scan_shard(path, checksums=True)
    said = shard_index.ShardContents(list(reversed(found.samples)), found.members)
    made, again = (shard_index.build_index(str(path), contents, 1, 2) for contents in (said, found))
    assert made.meta == again.meta
    assert all(np.array_equal(made[name], again[name]) for name in again.columns)


def test_a_copied_shard_keeps_its_index(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "x.tar", range(5))
    shard_index.write_index(path, shard_index.scan_shard(path, checksums=True))
    os.utime(path)
    assert "checksums" in shard_index.read_index(path).columns


@pytest.mark.parametrize("change", ["longer", "other names", "one more member"])
def test_an_index_of_another_tar_is_refused(tmp_path: Path, change: str) -> None:
    files = [("a.jpg", b"x" * 100), ("b.jpg", b"y" * 100)]
    path = write_tar(tmp_path / "x.tar", files)
    shard_index.write_index(path, shard_index.scan_shard(path, checksums=True))
    if change == "longer":
        write_tar(path, [*files, ("c.jpg", b"z" * 20_000)])
    elif change == "other names":
        write_tar(path, [("a.jpg", b"x" * 100), ("c.jpg", b"y" * 100)])
    else:
        write_tar(path, [*files, ("c.txt", b"z")])
    if change != "longer":
        os.utime(path)
    with pytest.raises(MillError, match=r"x.tar.index: it is not the index of the tar next to it"):
        shard_index.read_index(path)


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    path = write_samples(tmp_path / "x.tar", range(5))
    shard_index.write_index(path, shard_index.scan_shard(path))
    beside = Path(shard_index.index_path(path))
    beside.write_bytes(beside.read_bytes()[:-1])
    with pytest.raises(MillError, match="truncated"):
        shard_index.read_index(path)
    columns.write(beside, "something else", {"offsets": np.zeros(1)}, {})
    with pytest.raises(MillError, match="not 'shard index 1'"):
        shard_index.read_index(path)


def test_the_fingerprint_is_that_of_names_offsets_and_sizes(tmp_path: Path) -> None:
    def one(name: str, content: bytes, checksums: bool = False) -> str:
        path = backdate(write_tar(tmp_path / "x.tar", [(name, content)]))
        return shard_index.list_fingerprint(shard_index.scan_shard(path, checksums).samples)

    assert one("a.jpg", b"xx") == one("a.jpg", b"yy") == one("a.jpg", b"xx", checksums=True)
    assert len({one("a.jpg", b"xx"), one("b.jpg", b"xx"), one("a.jpg", b"xxx")}) == 3
