"""Pipes, loops of links and the like in a data set: bad samples, which nobody waits for."""

from __future__ import annotations

import logging
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers_odd_entries import REASONS, add_odd_entries, soon

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.folder import Folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    for name in ("a.jpg", "z.jpg"):
        (root / name).write_bytes(name.encode())
    add_odd_entries(root)
    return root


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_what_is_no_file_cannot_be_read_and_says_why(root: Path, kind: str) -> None:
    paths = sorted(str(path) for path in root.iterdir())
    source = open_source(root if kind == "folder" else paths)
    assert [source.where(i) for i in range(len(source))] == paths
    reasons = {}
    for i, path in enumerate(paths):
        name = Path(path).name
        if name in REASONS:

            def failure(i: int = i) -> str:
                with pytest.raises(OSError) as error:
                    source.read(i)
                return error.value.strerror or str(error.value)

            reasons[name] = soon(failure, root / "pipe.jpg", 10)
        else:
            assert source.read(i) == name.encode()
    assert reasons == REASONS


def test_reading_many_at_once_leaves_them_out(root: Path) -> None:
    source, memory = open_source(root), np.empty(1 << 16, np.uint8)
    wanted = [
        None if name in REASONS else name.encode()
        for name in (Path(source.where(i)).name for i in range(len(source)))
    ]
    ids = np.arange(len(source))
    assert soon(lambda: source.read_many(ids, memory), root / "pipe.jpg", 10) == wanted


def test_a_loop_of_links_among_class_folders_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.jpg").write_bytes(b"bytes")
    (tmp_path / "data" / "bird").symlink_to("bird")
    (tmp_path / "data" / "dog" / "more").symlink_to("more")
    with caplog.at_level(logging.WARNING, "patchmill"):
        source = Folder(tmp_path / "data")
    assert source.classes == ["cat", "dog"] and len(source) == 2
    for link in ("bird", "dog/more"):
        assert (
            f"{tmp_path / 'data' / link} is skipped: Too many levels of symbolic links"
            in caplog.text
        )


@pytest.mark.parametrize(
    "ending", [".tar", ".beton", ".zip", ".parquet", ".csv", ".lmdb", ".masks", ""]
)
def test_a_pipe_is_no_data_of_any_kind(ending: str, tmp_path: Path) -> None:
    pipe = tmp_path / f"data{ending}"
    os.mkfifo(pipe)

    def message() -> str:
        with pytest.raises(MillError) as error:
            open_source(pipe)
        return str(error.value)

    assert "is a pipe" in soon(message, pipe, 10)


def test_a_pipe_among_shards_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b-0001.tar")
    with tarfile.open(tmp_path / "a-0000.tar", "w") as tar:
        tar.add(__file__, "x.jpg")

    def message() -> str:
        with pytest.raises(MillError) as error:
            open_source(f"{tmp_path}/*.tar")
        return str(error.value)

    assert "it is a pipe, not a file" in soon(message, tmp_path / "b-0001.tar", 10)
