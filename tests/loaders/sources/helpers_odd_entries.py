"""Entries of a data set that are no files: a pipe, loops of links, a socket, a device."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

MOST_BYTES = 1 << 30  # of a file
REASONS = {
    "device.jpg": "it is a device, not a file",
    "endless.jpg": f"its {MOST_BYTES + 1} bytes are too many for an image",
    "loop.jpg": "Too many levels of symbolic links",
    "nowhere.jpg": "No such file or directory",
    "pipe.jpg": "it is a pipe, not a file",
    "socket.jpg": "it is a socket, not a file",
}


def add_odd_entries(folder: Path) -> None:
    """Put into a folder what REASONS lists."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "nowhere.jpg").symlink_to("nothing")
    (folder / "device.jpg").symlink_to("/dev/zero")
    with open(folder / "endless.jpg", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    place = os.open(folder, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{place}/socket.jpg")  # a socket's path must be short
    finally:
        os.close(place)


def soon(work: Callable[[], Result], pipe: Path, seconds: float = 60) -> Result:
    """The result of `work`; if it waits for a writer of the pipe, an error."""
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))  # so that it ends
        raise AssertionError("a reader waits for somebody to write into the pipe")
    assert results, "it has failed: see above"
    return results[0]
