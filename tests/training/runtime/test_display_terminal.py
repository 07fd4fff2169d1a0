"""Log lines and notices next to a bar, on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

NOTICE = "compiling the CPU kernels for this machine: about half a minute, once"

TRAINING = f"""
import logging, threading, time
from patchmill.training.runtime.display import Display, configure_logging
configure_logging(True)
log = logging.getLogger("patchmill")
with Display(400, 0, "dilo on scenes") as shown:
    for step in range(1, 9):
        shown.update(step * 50, step / 2, {{"loss": 6.9, "images_per_s": 800.0}})
        if step == 3:
            timer = threading.Timer(0.0, log.warning, ("{NOTICE}",))
            timer.start()
            timer.join()
        log.info("news %d", step)
        time.sleep(0.3)
"""

PREPARING = f"""
import logging, time
from patchmill.loaders.common import progress
from patchmill.loaders.prepare import command
progress._QUIET_SECONDS = 0.0
command.SUBCOMMANDS["none"] = lambda argv: None
command.main(["none"])
log = logging.getLogger("patchmill")
with progress.track("making masks", 8, unit="images") as advance:
    for step in range(1, 9):
        advance(1)
        time.sleep(0.3)
        log.warning("{NOTICE}" if step == 3 else f"news {{step}}")
"""


@pytest.mark.parametrize(("code", "bar"), [(TRAINING, "400/400"), (PREPARING, "8/8")])
def test_lines_stand_above_the_bar_and_do_not_tear_it(code: str, bar: str):
    lines = screen(on_a_terminal(code))
    assert NOTICE in lines
    assert sum("news" in line for line in lines) == (8 if bar == "400/400" else 7)
    assert all(re.fullmatch(r"news \d", line) for line in lines if "news" in line), lines
    assert [bar in line for line in lines if line].count(True) == 1 and bar in lines[-1], lines


def on_a_terminal(code: str) -> str:
    """Everything that a program writes to a terminal of 120 columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        written += data
    os.close(ours)
    assert process.wait() == 0, written
    return written.decode()


def screen(written: str) -> list[str]:
    """Lines that remain on the terminal: carriage return, line feed, cursor up and erase line."""
    lines, row, column = [""], 0, 0
    for control, text in re.findall(r"(\x1b\[[?\d;]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", written):
        if text:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif control.endswith("A"):
            row = max(row - int(control[2:-1] or 1), 0)
        elif control.endswith("K"):
            lines[row] = "" if control == "\x1b[2K" else lines[row][:column]
    kept = [line.rstrip() for line in lines]
    while kept and not kept[-1]:
        kept.pop()
    return kept
