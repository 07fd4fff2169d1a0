"""Files that several processes write: whole ones, and nothing of those that were killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from patchmill.loaders.files import columns, writing


def write_index(path: Path, content: bytes) -> None:
    columns.write(path, "test", {"bytes": np.frombuffer(content, np.uint8)}, {})


def write_text(path: Path, content: bytes) -> None:
    writing.write_atomic(path, content, writing.unique_name(path))


def killed_in(write: Callable[[Path, bytes], None], path: Path) -> None:
    """A process killed when everything is written but not yet renamed."""
    child = os.fork()
    if not child:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        write(path, b"of one that is killed")
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("write", [write_index, write_text])
def test_the_next_writer_removes_what_a_killed_one_left(
    write: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    path = tmp_path / "a[1].index"
    for _ in range(2):
        killed_in(write, path)
        assert len(os.listdir(tmp_path)) == 1 and not path.exists()
        write(path, b"whole")
        assert os.listdir(tmp_path) == [path.name]
        path.unlink()


def test_files_that_another_process_is_writing_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    with writing.atomic_path(path, writing.unique_name(path)) as partial:
        partial.write_bytes(b"first")
        child = os.fork()
        if not child:
            write_text(path, b"second")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert path.read_bytes() == b"second" and partial.read_bytes() == b"first"
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["shared"]


def test_an_error_of_the_writer_is_raised_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    with pytest.raises(FileNotFoundError, match="of the writer"):
        with writing.atomic_path(path, writing.unique_name(path)):
            raise FileNotFoundError("of the writer")
    assert os.listdir(tmp_path) == []
