"""Samples that are read together into memory are those that are read singly."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers_beton import write_beton
from helpers_odd_images import jpeg, picture, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill.loaders.prepare import make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.sources import Source, open_source, ranges
from patchmill.loaders.sources.subset import Subset

COUNT = 12


@pytest.fixture(scope="module", params=["folder", "shards", "beton"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("data")
    (folder / "files").mkdir()
    for number in range(COUNT):
        (folder / "files" / f"{number:02}.jpg").write_bytes(jpeg(number, 20 + number, 30))
    if request.param == "folder":
        return open_source(folder / "files")
    made = folder / ("shards" if request.param == "shards" else "all.beton")
    make_data.make(open_source(folder / "files"), made, Options(format=request.param), 1)
    return open_source(made)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    ids=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=20), room=st.integers(0, 40_000)
)
def test_they_are_the_same_as_far_as_there_is_room(
    source: Source, ids: list[int], room: int
) -> None:
    for one in (source, Subset(source, range(COUNT))):
        memory = np.zeros(room, np.uint8)
        spans = one.read_into(np.array(ids), memory)
        assert spans is not None and spans.shape == (len(ids), 2)
        left, last = room, 0
        for id, (start, end) in zip(ids, spans.tolist(), strict=True):
            data = one.read(id)
            if start < 0:
                assert len(data) >= left  # a file takes one byte more for its end
                continue
            assert start == last and memory[start:end].tobytes() == data
            left, last = left - len(data), end


def test_what_was_changed_or_is_gone_is_left_to_the_single_read(tmp_path: Path) -> None:
    """A shard's checksums tell; a shard that is not what was indexed is not read at all."""
    (tmp_path / "files").mkdir()
    for number in range(4):
        (tmp_path / "files" / f"{number}.jpg").write_bytes(jpeg(number))
    files = open_source(tmp_path / "files")
    make_data.make(files, tmp_path / "shards", Options(format="shards", seed=None), 1)
    shards, memory = open_source(tmp_path / "shards"), np.zeros(1 << 20, np.uint8)
    (path,) = (tmp_path / "shards").glob("*.tar")
    _, offset, size = shards.locate(2)  # type: ignore[attr-defined]
    content = bytearray(path.read_bytes())
    content[offset + size // 2] ^= 255
    with open(path, "r+b") as file:  # the same file, with the time that it had
        file.write(content)
    shards._open_files._check = lambda *_: None  # type: ignore[attr-defined]
    spans = shards.read_into(np.arange(4), memory)
    assert (spans[:, 0] < 0).tolist() == [False, False, True, False]
    with pytest.raises(OSError, match="checksum"):
        shards.read(2)
    path.unlink()
    again = open_source(tmp_path / "files")
    (tmp_path / "files" / "1.jpg").unlink()
    assert (again.read_into(np.arange(4), memory)[:, 0] < 0).tolist() == [False, True, False, False]


def test_raw_images_of_a_beton_are_left_to_the_single_read(tmp_path: Path) -> None:
    """`write_beton` stores what is no JPEG as pixels."""
    files = [saved(picture(1, 9, 9), "PNG"), jpeg(2), saved(picture(3, 9, 9), "PNG")]
    beton = open_source(write_beton(tmp_path / "all.beton", files))
    spans = beton.read_into(np.arange(3), np.zeros(1 << 20, np.uint8))
    assert spans is not None and (spans[:, 0] < 0).tolist() == [True, False, True]


@pytest.mark.parametrize("compiled", [True, False])
def test_checksums_are_those_of_zlib(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(ranges, "_has_crc32", lambda: False)
    memory = np.frombuffer(jpeg(1), np.uint8).copy()
    spans = np.array([[0, 700], [-1, -1], [3, 3], [5, len(memory)]])
    expected = [zlib.crc32(memory[:700]), 0, 0, zlib.crc32(memory[5:])]
    assert ranges.crc32(memory, spans).tolist() == expected
