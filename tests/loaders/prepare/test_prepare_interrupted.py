"""Ctrl-C ends `prepare` though storage hangs: nothing waits for a read that never returns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import helpers_prepare as making

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import os, signal, sys, threading
from patchmill.loaders.common.errors import run_command
from patchmill.loaders.prepare import command
from patchmill.loaders.sources.folder import Folder

def hang(folder, index, read=Folder.read):
    if threading.current_thread() is threading.main_thread():
        return read(folder, index)
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()

Folder.read = hang
run_command(lambda: command.main(sys.argv[1:]))
"""


def test_ctrl_c_ends_a_command_whose_reads_hang(tmp_path: Path) -> None:
    folder = making.photos(tmp_path / "src", 6)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    told = done.stderr.rstrip().splitlines()[-1]
    assert told == "error: interrupted; the same command continues where it stopped"
