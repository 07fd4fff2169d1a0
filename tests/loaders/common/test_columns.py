"""Column files: round trips, memory mapping, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.loaders.common import columns
from patchmill.loaders.common.errors import MillError


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


def test_columns_are_mapped_not_read(tmp_path: Path) -> None:
    columns.write(tmp_path / "file", "test", {"x": np.zeros(1 << 20, np.uint8)}, {})
    file = columns.read(tmp_path / "file", "test")
    assert not file["x"].flags.owndata
    columns.write(tmp_path / "file", "test", {"x": np.ones(3, np.uint8)}, {})
    assert file["x"].sum() == 0 and columns.read(tmp_path / "file", "test")["x"].sum() == 3


def test_a_column_may_come_in_pieces(tmp_path: Path) -> None:
    pieces = [np.arange(5, dtype="<u4"), np.zeros(0, "<u4"), np.arange(900, dtype="<u4")]
    column = columns.Parts(np.dtype("<u4"), 905, pieces)
    columns.write(tmp_path / "file", "test", {"x": column, "y": np.arange(3)}, {})
    file = columns.read(tmp_path / "file", "test")
    np.testing.assert_array_equal(file["x"], np.concatenate(pieces))
    np.testing.assert_array_equal(column.joined(), file["x"])
    assert file["y"].tolist() == [0, 1, 2]
    with pytest.raises(OSError, match="changed at the same time"):
        columns.write(tmp_path / "other", "test", {"x": columns.Parts(column.dtype, 9, pieces)}, {})
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]


@given(st.lists(st.binary(max_size=20), max_size=30))
def test_byte_strings(items: list[bytes]) -> None:
    data, starts = columns.join(items)
    assert [columns.item(data, starts, i) for i in range(len(items))] == items


@pytest.mark.parametrize(
    "damage", ["missing", "foreign", "short", "cut", "header", "kind", "empty"]
)
def test_damage_is_a_one_line_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "file"
    columns.write(path, "test", {"x": np.arange(1000)}, {})
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
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
