"""Run one command in its own process group with a time limit; the whole group is ended."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE = 5.0  # seconds between asking a group to end and ending it


@dataclass(frozen=True)
class Ended:
    status: int  # of the process; below 0, the signal that ended it
    seconds: float
    in_time: bool


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    limit: float,
    stop: threading.Event | None = None,
) -> Ended:
    """Run until it ends, `limit` seconds have passed, or another thread has set `stop`.

    The command's output is added to the log.
    """
    with open(log, "a") as output:
        output.write(f"$ {shlex.join(command)}\n")
        output.flush()
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        in_time = True
        try:
            _wait(process, limit, stop)
        except subprocess.TimeoutExpired:
            in_time = False
            _signal(process, signal.SIGINT)  # tests and benchmarks then print where they are
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            _signal(process, signal.SIGKILL)  # also everything the command has started
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)  # a process stuck on a broken GPU may never end
    status = process.returncode
    return Ended(-signal.SIGKILL if status is None else status, time.monotonic() - began, in_time)


def _wait(process: subprocess.Popen[bytes], limit: float, stop: threading.Event | None) -> None:
    if stop is None:
        process.wait(limit)
        return
    end = time.monotonic() + limit
    while process.poll() is None:
        if stop.wait(0.1) or time.monotonic() > end:
            raise subprocess.TimeoutExpired(process.args, limit)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
