"""Column files: round trips, damage, and files that change while they are open."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import columns


def test_round_trip(tmp_path: Path) -> None:
    content = {
        "labels": np.arange(5, dtype=np.int64),
        "shapes": np.arange(10, dtype=np.int32).reshape(5, 2),
        "odd": np.frombuffer(b"abc", np.uint8),
        "empty": np.zeros((0, 3), np.float32),
    }
    columns.write(tmp_path / "file", "test", content, {"root": "a\udcffb", "n": 5})
    file = columns.read(tmp_path / "file", "test")
    assert file.meta == {"root": "a\udcffb", "n": 5}
    for name, column in content.items():
        np.testing.assert_array_equal(file[name], column)
        assert file[name].dtype == column.dtype and not file[name].flags.writeable
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]


def test_columns_that_were_read_do_not_change(tmp_path: Path) -> None:
    columns.write(tmp_path / "file", "test", {"x": np.arange(1 << 20)}, {})
    file = columns.read(tmp_path / "file", "test")
    os.truncate(tmp_path / "file", 1)
    np.testing.assert_array_equal(file["x"], np.arange(1 << 20))
    columns.write(tmp_path / "file", "test", {"x": np.ones(3, np.uint8)}, {})
    assert file["x"][5] == 5 and columns.read(tmp_path / "file", "test")["x"].sum() == 3


def flip(path: Path, column: str, byte: int, bit: int = 1) -> None:
    place = columns.read(path, "test", only=()).places[column]
    data = bytearray(path.read_bytes())
    data[place + byte] ^= bit
    path.write_bytes(bytes(data))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from("xyz"), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_flipped_bit_of_a_column_is_detected(
    tmp_path: Path, column: str, at: float, bit: int
) -> None:
    path = tmp_path / "file"
    content = {"x": np.arange(300), "y": np.ones((3, 5), "f4"), "z": np.zeros(7, np.uint8)}
    columns.write(path, "test", content, {})
    flip(path, column, int(at * content[column].nbytes), 1 << bit)
    with pytest.raises(MillError, match=f"'{column}' differs from its checksum; make it again"):
        columns.read(path, "test")
    assert columns.find(path, "test") is None


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A column of 2.4 MiB, which counts as large here, and the same one as bytes."""
    monkeypatch.setattr(columns, "_LARGE_BYTES", 1 << 20)
    numbers = np.arange(600_000, dtype="<u4")
    content = {"x": numbers, "bytes": numbers.view(np.uint8)}
    columns.write(tmp_path / "file", "test", content, {})
    return tmp_path / "file"


def test_pieces_are_verified_on_first_use(large: Path) -> None:
    flip(large, "x", 2_000_000)  # in the second of three pieces
    x = columns.read(large, "test", only=["x"], lazily=["x"])["x"]
    assert (len(x), x[0], x[599_999]) == (600_000, 0, 599_999)
    assert x[np.array([3, 550_000, 4])].tolist() == [3, 550_000, 4]
    for wanted in (500_000, np.array([1, 500_000])):
        with pytest.raises(OSError, match=r"file cannot be used: its column 'x' differs"):
            x[wanted]
    with pytest.raises(OSError, match="differs"):
        x.whole()
    flip(large, "x", 2_000_000)
    np.testing.assert_array_equal(x.whole(), np.arange(600_000))


def test_pieces_of_a_truncated_file_are_errors(large: Path) -> None:
    file = columns.read(large, "test", stored=["bytes"], lazily=["x"])
    assert file["x"][1] == 1 and columns.item(file["bytes"], np.array([4, 9]), 0) == b"\1\0\0\0\2"
    os.truncate(large, 1 << 20)
    assert file["x"][2] == 2
    with pytest.raises(OSError, match="truncated"):
        file["x"][500_000]
    with pytest.raises(OSError, match="truncated"):
        file["bytes"][2_000_000:2_000_009]


def test_stored_bytes_are_checked(large: Path) -> None:
    flip(large, "bytes", 2_000_000)
    data = columns.read(large, "test", stored=["bytes"])["bytes"]
    assert data[:5].tobytes() == b"\0\0\0\0\1" and data[7:7].size == 0
    with pytest.raises(OSError, match="'bytes' differs"):
        data[1_040_000:1_060_000]


def resealed(path: Path, change: Callable[[dict[str, Any]], object], version: bytes = b"2") -> None:
    """Change the header of a file, and update its checksum."""
    data = path.read_bytes()
    length = struct.unpack_from("<8sII", data)[1]
    content = json.loads(data[16 : 16 + length])
    change(content)
    header = json.dumps(content).encode()
    head = struct.pack("<8sII", data[:5] + version + b"\r\n", len(header), zlib.crc32(header))
    head += header + bytes(-(16 + len(header)) % 64)
    path.write_bytes(head + data[-(-(16 + length) // 64) * 64 :])


def test_files_of_the_first_version_are_read_but_not_kept_as_caches(tmp_path: Path) -> None:
    columns.write(tmp_path / "file", "test", {"x": np.arange(300)}, {"n": 1})
    resealed(tmp_path / "file", lambda content: content["columns"]["x"].pop("checksums"), b"1")
    file = columns.read(tmp_path / "file", "test")
    assert file["x"].tolist() == list(range(300)) and file.meta == {"n": 1} and not file.checked
    assert columns.find(tmp_path / "file", "test") is None


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "|O"},
        {"dtype": "nonsense"},
        {"shape": [-1]},
        {"shape": [1 << 70]},
        {"shape": ["3"]},
        {"offset": 1 << 40},
        {"offset": -8},
        {"offset": None},
        {"checksums": "no"},
        {"checksums": "00"},
    ],
)
def test_an_invalid_header_is_a_one_sentence_error(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "file"
    columns.write(path, "test", {"x": np.arange(300)}, {})
    resealed(path, lambda content: content["columns"]["x"].update(change))
    with pytest.raises(MillError, match="make it again"):
        columns.read(path, "test")


def test_a_column_may_come_in_pieces(tmp_path: Path) -> None:
    pieces = [np.arange(5, dtype="<u4"), np.zeros(0, "<u4"), np.arange(900, dtype="<u4")]
    column = columns.Parts(np.dtype("<u4"), 905, pieces)
    columns.write(tmp_path / "file", "test", {"x": column, "y": np.arange(3)}, {})
    file = columns.read(tmp_path / "file", "test")
    np.testing.assert_array_equal(file["x"], np.concatenate(pieces))
    np.testing.assert_array_equal(column.joined(), file["x"])
    assert file["y"].tolist() == [0, 1, 2]
    with pytest.raises(OSError, match="changed during the write"):
        columns.write(tmp_path / "other", "test", {"x": columns.Parts(column.dtype, 9, pieces)}, {})
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]


@given(st.lists(st.binary(max_size=20), max_size=30))
def test_byte_strings(items: list[bytes]) -> None:
    data, starts = columns.join(items)
    assert [columns.item(data, starts, i) for i in range(len(items))] == items


@pytest.mark.parametrize(
    "damage", ["missing", "foreign", "short", "cut", "header", "kind", "empty", "pipe"]
)
def test_damage_is_a_one_line_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "file"
    columns.write(path, "test", {"x": np.arange(1000)}, {})
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.write_bytes(
            {
                "foreign": b"\x93NUMPY" + whole,
                "short": whole[:5],
                "cut": whole[:-1],
                "header": whole[:20] + b"!" + whole[21:],
                "kind": whole,
                "empty": b"",
            }[damage]
        )
    kind = "other" if damage == "kind" else "test"
    with pytest.raises(MillError, match="make it again") as caught:
        columns.read(path, kind)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert columns.find(path, kind) is None


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    columns.write(path, "test", {"x": np.arange(3)}, {})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(columns.os, "fsync", fail)
    with pytest.raises(OSError):
        columns.write(path, "test", {"x": np.arange(9)}, {})
    assert len(columns.read(path, "test")["x"]) == 3
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["file"]
