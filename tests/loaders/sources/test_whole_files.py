"""Many files read at once: the contents of those that can be read, None for the others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.files import columns
from patchmill.loaders.sources import whole_files


@settings(max_examples=25, deadline=None)
@given(
    contents=st.lists(st.binary(max_size=300), min_size=1, max_size=9),
    order=st.lists(st.integers(0, 8), max_size=12),
    room=st.integers(0, 1500),
)
def test_files_are_read_in_any_order_as_far_as_there_is_room(
    contents: list[bytes], order: list[int], room: int, tmp_path_factory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    names = [f"ä {number}.bin".encode() for number in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        Path(folder, os.fsdecode(name)).write_bytes(content)
    chosen = np.array([number % len(contents) for number in order], np.int64)
    memory = np.empty(room, np.uint8)
    read = whole_files.read(os.fsencode(folder) + b"/", *columns.join(names), chosen, memory)
    left = room
    for number, content in zip(chosen, read, strict=True):
        assert content in (None, contents[number])
        assert (content is not None) == (len(contents[number]) < left)  # one byte more for its end
        left -= len(content or b"")


def test_what_is_no_readable_file_is_none_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"first")
    (tmp_path / "folder").mkdir()
    (tmp_path / "b").write_bytes(b"second")
    names = [b"a", b"missing", b"folder", b"x" * 5000, b"b"]
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    folder, memory = os.fsencode(tmp_path) + b"/", np.empty(100, np.uint8)
    read = whole_files.read(folder, *columns.join(names), np.arange(5), memory)
    assert read == [b"first", None, None, None, b"second"]
    if before:
        assert len(os.listdir("/proc/self/fd")) == len(before)  # all are closed again
