"""A process survives the truncation of a file that it has mapped, and refuses what it read."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import mapped

PROGRAM = """
import mmap, os, sys, threading
import numpy as np
from patchmill.loaders.files import mapped

def mapped_file(name):
    with open(name, "w+b") as file:
        file.write(b"x" * 100_000)
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

guarded, other = mapped_file(sys.argv[1]), mapped_file(sys.argv[1] + ".other")
mapped.guard(guarded, sys.argv[1])
mapped.check()
os.truncate(sys.argv[1], 4096)
sums = []
threads = [
    threading.Thread(target=lambda: sums.append(int(np.frombuffer(guarded, np.uint8).sum())))
    for _ in range(4)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sums == [4096 * ord("x")] * 4)
os.truncate(sys.argv[1], 100_000)  # the size alone would not tell
try:
    mapped.check()
except mapped.MillError as error:
    print(error)
sys.stdout.flush()
os.truncate(sys.argv[1] + ".other", 0)
other[50_000]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the handler is for Linux")
def test_zeros_are_read_and_refused_and_other_bus_errors_end_the_process(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    assert first == "True"
    assert second.startswith(f"{path} was truncated while it was in use: ")
    assert done.returncode == -signal.SIGBUS


def test_a_smaller_file_is_refused_until_its_map_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    with open(tmp_path / "file", "rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.guard(memory, "the file")
    array = np.frombuffer(memory, np.uint8)
    mapped.check()
    os.truncate(tmp_path / "file", 99)  # within a page: nothing faults
    del memory
    with pytest.raises(MillError, match="the file was truncated"):
        mapped.check()
    del array
    gc.collect()
    mapped.check()
