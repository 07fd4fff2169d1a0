"""Logs of any length in a bounded number of buckets, read bit by bit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from helpers_watch import begin, log
from hypothesis import given
from hypothesis import strategies as st

from patchmill.training.watch import follow, series
from patchmill.training.watch.follow import Follower, parse
from patchmill.training.watch.series import Position, Series


class Reader:
    """Does with events what the page does."""

    def __init__(self) -> None:
        self.columns: dict[str, dict[str, list[float | None]]] = {}
        self.position, self.stride, self.rows = Position(), 0, 0

    def take(self, new) -> None:
        if not new:
            return
        self.stride, self.rows = new["stride"], new["rows"]
        old = self.columns if new["from"] else {}
        self.columns = {
            name: {
                part: old.get(name, {}).get(part, [])[: new["from"]] + values
                for part, values in parts.items()
            }
            for name, parts in new["columns"].items()
        }

    def read(self, source: Follower) -> bool:
        new, self.position, more = source.since(self.position)
        self.take(new)
        return more

    def read_all(self, source: Follower) -> None:
        while self.read(source):
            pass


@given(st.lists(st.integers(0, 90), min_size=1, max_size=20), st.integers(2, 9))
def test_a_reader_that_follows_has_what_a_new_one_gets(sizes: list[int], most: int):
    rows = np.stack([np.arange(sum(sizes)) + 1.0, np.sin(np.arange(sum(sizes)))], 1)
    before, series.MOST = series.MOST, most
    try:
        one, reader = Series(["step", "loss"]), Reader()
        for stop, size in zip(np.cumsum(sizes), sizes, strict=True):
            one.add(rows[stop - size : stop])
            new, reader.position = one.since(reader.position)
            reader.take(new)
        fresh = Reader()
        fresh.take(one.since(Position())[0])
    finally:
        series.MOST = before
    assert reader.columns == fresh.columns
    if not len(rows):
        return
    loss = reader.columns["loss"]
    assert len(loss["mean"]) <= 2 * most and reader.rows == len(rows)
    cuts = np.arange(0, len(rows), reader.stride)
    means = [rows[cut : cut + reader.stride, 1].mean() for cut in cuts]
    assert loss["mean"] == pytest.approx(means, rel=1e-6, abs=1e-6)
    assert min(loss.get("low", loss["mean"])) == pytest.approx(rows[:, 1].min(), abs=1e-6)
    assert max(loss.get("high", loss["mean"])) == pytest.approx(rows[:, 1].max(), abs=1e-6)


def test_a_million_rows_are_few_buckets():
    one = Series(["step", "loss"])
    steps = np.arange(1e6)
    for part in np.array_split(np.stack([steps, np.cos(steps)], 1), 7):
        one.add(part)
    new, position = one.since(Position())
    assert new and series.MOST <= len(new["columns"]["loss"]["mean"]) <= 2 * series.MOST + 1
    assert new["rows"] == 10**6 and one.since(position)[0] is None


def test_what_is_not_finite_does_not_count():
    one = Series(["step", "loss"])
    one.add(np.array([[1, math.nan], [2, math.inf], [3, 0.5]]))
    new, _ = one.since(Position())
    assert new and new["columns"]["loss"]["mean"] == [None, None, 0.5]


def test_lines_that_are_no_rows_are_left_out_and_odd_cells_are_nan():
    lines = ["1,2,,", "2,,nan,inf", "3,4", "5,x,1,-1e-3", "", "6,,,", "7,1,2,3,4", ",,,"]
    expected = [
        [1, 2, np.nan, np.nan], [2, np.nan, np.nan, np.inf], [5, np.nan, 1, -1e-3],
        [6, np.nan, np.nan, np.nan], [np.nan] * 4,
    ]  # fmt: skip
    np.testing.assert_array_equal(parse(lines, 4), expected)
    np.testing.assert_array_equal(parse(["1,", ",2"], 2), [[1, np.nan], [np.nan, 2]])
    assert parse([], 3).shape == (0, 3)


# --------------------------------------------------------------------------------------- following


def test_a_log_is_followed_from_before_it_exists(tmp_path: Path):
    source, reader = Follower(tmp_path), Reader()
    reader.read(source)
    assert reader.rows == 0
    log(begin(tmp_path), range(1, 6))
    reader.read(source)
    with open(tmp_path / "log.csv", "a") as file:
        file.write("6,1.5,")
    reader.read(source)
    assert reader.columns["step"]["mean"] == [1, 2, 3, 4, 5]
    with open(tmp_path / "log.csv", "a") as file:
        file.write("0.03,0.2,800,0.02\n")
    reader.read(source)
    assert reader.columns["loss"]["mean"][-1] == 1.5 and reader.rows == 6


def test_a_new_column_and_a_resumed_run_start_the_log_anew(tmp_path: Path):
    recorder, source, reader = begin(tmp_path), Follower(tmp_path), Reader()
    log(recorder, range(1, 21))
    reader.read(source)
    recorder.scalars(21, {"loss": 1.0, "memory_gb": 2.5})
    reader.read(source)
    assert reader.columns["memory_gb"]["mean"] == [None] * 20 + [2.5]
    resumed = type(recorder)(tmp_path, {}, start=10, tensorboard=False)
    log(resumed, range(11, 40))
    reader.read(source)
    assert reader.columns["step"]["mean"] == list(range(1, 40))
    assert reader.columns["memory_gb"]["mean"] == [None] * 39


def test_a_log_that_goes_away_stays_on_the_page(tmp_path: Path):
    log(begin(tmp_path), range(1, 6))
    source, reader = Follower(tmp_path), Reader()
    reader.read(source)
    (tmp_path / "log.csv").unlink()
    reader.read(source)
    assert reader.rows == 5


def test_a_long_log_comes_in_chunks(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(follow, "CHUNK", 5000)
    log(begin(tmp_path), range(1, 1001))
    source, reader = Follower(tmp_path), Reader()
    assert reader.read(source) and 0 < reader.rows < 1000
    reader.read_all(source)
    assert reader.columns["step"]["mean"] == list(range(1, 1001))


@pytest.mark.parametrize(
    "content", [b"", b"\n\n\n", b"\xff\xfe\n\x00,1\n", b"step\n1\n2\n", b"a,b"]
)
def test_files_that_are_no_log_are_no_error(tmp_path: Path, content: bytes):
    (tmp_path / "log.csv").write_bytes(content)
    reader = Reader()
    reader.read_all(Follower(tmp_path))
    assert "loss" not in reader.columns


def test_a_line_without_end_is_passed_over(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(follow, "CHUNK", 4096)
    monkeypatch.setattr(follow, "LONGEST_LINE", 2048)
    (tmp_path / "log.csv").write_bytes(b"x" * 100_000)
    reader, source = Reader(), Follower(tmp_path)
    for _ in range(50):
        reader.read(source)
    assert reader.rows == 0 and source._offset > 90_000
