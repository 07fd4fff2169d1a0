"""Inspection finds and names one changed byte anywhere."""

import os
import zlib
from pathlib import Path

import helpers_prepare as making
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import columns
from patchmill.loaders.prepare import command, inspect_data
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.shards import index as shard_index


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATCHMILL_CACHE", str(folder / "cache"))
        source = making.photos(folder / "src", 12)
        making.prepare(source, folder / "shards")
        making.prepare(source, folder / "all.beton", "beton")
    return folder


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_changed_byte_of_a_shard(prepared: Path, place: float, change: int):
    assert inspect_data.inspect(prepared / "shards")[1] == []
    with changed(prepared / "shards" / "data-000000.tar", place, change):
        _, problems = inspect_data.inspect(prepared / "shards")
    assert len(problems) == 1
    assert problems[0].startswith("data-000000.tar")


def test_the_damaged_image_is_named(prepared: Path):
    with changed(prepared / "shards" / "data-000000.tar", 0.5, 1):
        text, problems = inspect_data.inspect(prepared / "shards")
    assert problems[0].startswith("data-000000.tar: the checksum of 0000000")
    assert text.endswith("the checksums of 12 images: 1 problems")


def test_any_changed_image_of_a_beton(prepared: Path):
    path = prepared / "all.beton"
    assert inspect_data.inspect(path)[1] == []
    data = path.read_bytes()
    image = data.index(b"\xff\xd8\xff") + 700
    for at in (image, data.index(b"class1")):
        with changed(path, at / len(data), 1):
            _, problems = inspect_data.inspect(path)
        assert len(problems) == 1
        assert str(path) in problems[0]


class changed:
    """Change one byte of a file temporarily, keeping its times."""

    def __init__(self, path: Path, place: float, change: int) -> None:
        self._path, self._place, self._change = path, place, change

    def __enter__(self) -> None:
        self._data, self._status = self._path.read_bytes(), self._path.stat()
        data = bytearray(self._data)
        data[int(self._place * len(data))] ^= self._change
        self._write(bytes(data))

    def __exit__(self, *error: object) -> None:
        self._write(self._data)

    def _write(self, data: bytes) -> None:
        self._path.write_bytes(data)
        os.utime(self._path, ns=(self._status.st_atime_ns, self._status.st_mtime_ns))


COLUMNS = ("labels", "offsets", "sizes", "checksums")


def labelled(data: Path) -> list[tuple[int, int]]:
    """Checksum and label of every sample."""
    source = open_source(data)
    assert source.labels is not None
    labels = source.labels.tolist()
    return [(zlib.crc32(source.read(i)), labels[i]) for i in range(len(source))]


@pytest.mark.parametrize("name", COLUMNS)
def test_a_flipped_bit_of_an_index_gives_no_wrong_sample(prepared: Path, name: str):
    path = prepared / "shards" / "data-000000.tar.index"
    index, expected = columns.read(path, shard_index.KIND), labelled(prepared / "shards")
    for row, bit in ((0, 0), (3, 0), (5, 8 * index[name].itemsize - 1)):
        at = index.places[name] + row * index[name].itemsize + bit // 8
        with changed(path, (at + 0.5) / path.stat().st_size, 1 << bit % 8):
            os.utime(path)  # seen as another index than that of the cached set
            assert labelled(prepared / "shards") == expected
            _, problems = inspect_data.inspect(prepared / "shards")
        assert len(problems) == 1
        assert f"data-000000.tar.index: its column '{name}' differs" in problems[0]


@pytest.mark.parametrize("name", COLUMNS)
def test_inspect_compares_an_index_without_checksums_with_its_tar(prepared: Path, name: str):
    path = prepared / "shards" / "data-000000.tar.index"
    index = columns.read(path, shard_index.KIND)
    content = {key: column.copy() for key, column in index.columns.items()}
    content[name][3] ^= 1
    kept = path.read_bytes()
    columns.write(path, shard_index.KIND, content, index.meta)
    try:
        _, problems = inspect_data.inspect(prepared / "shards")
    finally:
        path.write_bytes(kept)
    assert len(problems) >= 1
    assert "data-000000.tar" in problems[0]


def test_missing_truncated_and_foreign_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    files = {f"{i}.jpg": making.bulky(i, 300_000) for i in range(12)}
    making.prepare(making.write_folder(tmp_path / "src", files), tmp_path / "out", shard_size=10**6)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert len(names) == 4
    (tmp_path / "out" / names[0]).unlink()
    os.truncate(tmp_path / "out" / names[1], 500_000)
    (tmp_path / "out" / f"{names[2]}.index").unlink()
    (tmp_path / "out" / "data-000009.tar").write_bytes(b"")
    _, problems = inspect_data.inspect(tmp_path / "out")
    named = [problem.split()[0].rstrip(":") for problem in problems]
    assert sorted(named) == sorted([*names[:3], "data-000009.tar"])


def test_the_exit_status_is_1_after_a_problem(prepared: Path, capsys: pytest.CaptureFixture):
    given = ["inspect", str(prepared / "shards")]
    command.main(given)
    with changed(prepared / "shards" / "data-000000.tar", 0.5, 1):
        with pytest.raises(SystemExit) as ended:
            command.main(given)
    assert "the checksum of" in str(ended.value)
    assert "1 problems" in capsys.readouterr().out


def test_foreign_shards_are_described(tmp_path: Path):
    import webdataset

    (tmp_path / "theirs").mkdir()
    with webdataset.TarWriter(str(tmp_path / "theirs" / "a.tar"), encoder=False) as writer:
        for i in range(3):
            writer.write({"__key__": f"{i}", "jpg": making.jpeg(i), "cls": b"%d" % i})
    text, problems = inspect_data.inspect(tmp_path / "theirs")
    assert problems == []
    assert "samples    3 in 1 shards" in text
    assert "3 images have none" in text


@pytest.mark.parametrize("name", ["nothing", "nothing.beton"])
def test_a_missing_output_is_reported_in_one_sentence(tmp_path: Path, name: str):
    with pytest.raises(MillError, match="check the path"):
        inspect_data.inspect(tmp_path / name)
