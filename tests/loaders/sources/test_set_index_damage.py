"""The cached index of a set of shards is rebuilt if it is damaged, also while in use."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from helpers_shards import add_indexes, backdate, check_samples, three_shards

from patchmill.loaders.files import cache, columns
from patchmill.loaders.sources.shards import set_index
from patchmill.loaders.sources.shards.source import Shards


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three shards whose set index is cached, and read a piece at a time."""
    monkeypatch.setattr(columns, "_LARGE_BYTES", 0)
    folder = three_shards(tmp_path / "shards")
    add_indexes(folder)
    for path in folder.iterdir():
        backdate(path)
    Shards(folder)
    return folder


def damage(column: str) -> Path:
    (path,) = (cache.root() / "shards").glob("*.set")
    place = columns.read(path, set_index.KIND).places[column]
    data = bytearray(path.read_bytes())
    data[place + 3] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("column", ["offsets", "sizes", "checksums", "labels"])
def test_a_damaged_piece_costs_no_sample(
    shards: Path, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    sound = Shards(shards).labels
    path = damage(column)
    with caplog.at_level(logging.WARNING, "patchmill"):
        source = Shards(shards)
        check_samples(source)
        np.testing.assert_array_equal(source.labels, sound)
    (told,) = [record.message for record in caplog.records]
    assert str(path) in told and f"{column!r} differs from its checksum" in told
    assert "rebuilding" in told and "\n" not in told
    caplog.clear()
    check_samples(Shards(shards))
    assert not caplog.records


def test_an_index_that_another_process_made_again_is_kept(shards: Path) -> None:
    path = damage("offsets")
    first, second = Shards(shards), Shards(shards)
    check_samples(first)
    made_again = path.stat().st_ino
    check_samples(second)
    assert path.stat().st_ino == made_again


def test_columns_that_do_not_fit_are_made_again(shards: Path) -> None:
    (path,) = (cache.root() / "shards").glob("*.set")
    found = columns.read(path, set_index.KIND)
    for name in ("starts", "offsets", "tar_states", "labels", "paths"):
        content = dict(found.columns) | {name: found[name][:-1]}
        columns.write(path, set_index.KIND, content, found.meta)
        check_samples(Shards(shards))
