"""A program ends cleanly however many iterators of it are alive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

PROGRAM = """
import atexit, threading
from helpers_pipelines import Pictures, make_loader

def consume():
    while True:
        for _ in make_loader(Pictures(2000, lambda index: gate.wait() if index == 9 else None)):
            begun.set()

begun, gate = threading.Event(), threading.Event()
threading.Thread(target=consume, daemon=True).start()
begun.wait()
late, kept = iter(make_loader(2000)), iter(make_loader(2000))
atexit.register(next, late)
next(kept)
print("done")
"""


def test_iterators_in_threads_and_at_exit_end_without_a_word() -> None:
    """One that a thread waits on, one that is begun when the program ends, and one at rest."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line for line in done.stderr.splitlines() if "threads still wait" not in line]
    assert (done.returncode, done.stdout, lines) == (0, "done\n", [])
