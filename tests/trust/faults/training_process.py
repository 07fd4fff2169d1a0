"""Train repeatedly in forked children of a process with a preloaded library of disk faults.

The process imports torch once for all children. Each line of standard input is a task.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from patchmill.loaders.common import c_compiler
from trust.faults import limits

SOURCE = Path(__file__).with_name("disk.c")
MODES = {"": 0, "kill": 1, "full": 2, "full once": 3}
PATIENCE = 120  # timeout of a child in seconds; its stacks are in its log then
OVERRIDES = {
    "train__epochs": 2,
    "train__checkpoint_every": 3,
    "evaluate": "knn",
    "log__tensorboard": True,
}


class Ended(NamedTuple):
    code: int  # exit code; negative if a signal ended it
    calls: int  # to the disk
    grown: int  # address space used, in bytes
    err: str


class Runs:
    """Train in folders, with faults; `folder` is the process's own."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.folder = folder
        self._process, self._log = process, folder / "stderr.txt"

    def train(
        self,
        out: Path,
        fault: str = "",
        at: int = 0,
        after: float = 0.0,
        limit: tuple[str, int] | None = None,
    ) -> Ended:
        """Train into `out`, with a fault at a call to the disk, or a kill after some seconds.

        `limit` is a memory limit, as `limits.limited` takes it.
        """
        task = dict(out=str(out), mode=MODES[fault], at=at, after=after, log=str(self._log))
        task["limit"] = limit
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        code, calls, grown = json.loads(self._process.stdout.readline())
        return Ended(code, calls, grown, self._log.read_text(errors="replace"))

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def start() -> Runs | None:
    """Start the process that forks, one for all checks of a process; None without a compiler."""
    folder = Path(tempfile.mkdtemp(prefix="patchmill-trust-"))
    library = folder / "disk.so"
    if not _build(library):
        shutil.rmtree(folder)
        return None
    environ = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(library)],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    runs = Runs(process, folder)
    atexit.register(runs.close)
    return runs


def _build(library: Path) -> bool:
    compiler = c_compiler.compiler()
    if not compiler:
        return False
    command = [
        *compiler.split(),
        "-shared",
        "-fPIC",
        "-O1",
        str(SOURCE),
        "-o",
        str(library),
        "-ldl",
    ]
    return subprocess.run(command, capture_output=True).returncode == 0


# ------------------------------------------------------------------------------ in the process


def serve(library: ctypes.CDLL) -> None:
    """Train once here, so that the children have all code loaded; then fork once per task."""
    import helpers_runs
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        helpers_runs.train(helpers_runs.config(folder, **OVERRIDES | {"train__epochs": 1}))
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line), library)), flush=True)


def _forked(task: dict[str, Any], library: ctypes.CDLL) -> tuple[int, int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _train(task, library, writing)
    os.close(writing)
    after, number = (task["after"], signal.SIGKILL) if task["after"] else (PATIENCE, signal.SIGABRT)
    killer = threading.Timer(after, os.kill, (child, number))
    killer.start()
    with open(reading) as file:
        calls, grown = (file.read() or "0 0").split()
    status = os.waitpid(child, 0)[1]
    killer.cancel()
    killer.join()
    return os.waitstatus_to_exitcode(status), int(calls), int(grown)


def _train(task: dict[str, Any], library: ctypes.CDLL, pipe: int) -> None:
    import helpers_runs

    from patchmill.loaders.common.errors import run_command
    from patchmill.training.runtime import display

    null, log = (
        os.open(os.devnull, os.O_RDWR),
        os.open(task["log"], os.O_CREAT | os.O_WRONLY, 0o600),
    )
    os.ftruncate(log, 0)
    for number, file in ((0, null), (1, null), (2, log)):
        os.dup2(file, number)
    faulthandler.enable()
    code, limit = 0, task["limit"]
    limits.give_back()
    first = limits.used()["VmSize"]
    display.configure_logging(True)
    library.trust_arm(task["out"].encode(), task["mode"], ctypes.c_long(task["at"]))

    def train() -> None:
        with limits.limited(*limit) if limit else contextlib.nullcontext():
            helpers_runs.train(helpers_runs.config(task["out"], **OVERRIDES))

    try:
        run_command(train)
    except SystemExit as ended:
        code = 1 if isinstance(ended.code, str) else int(ended.code or 0)
        print(ended.code if isinstance(ended.code, str) else "", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 2
    library.trust_count.restype = ctypes.c_long
    os.write(pipe, f"{library.trust_count()} {limits.peak() - first}".encode())
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(ctypes.CDLL(sys.argv[1]))
    os._exit(0)
