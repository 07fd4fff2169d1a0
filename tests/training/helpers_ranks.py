"""Run code strings as the ranks of a run, one process per rank.

A single process imports torch once for all tests, and forks the ranks.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import IO, NamedTuple

FORKS = """
import json, os, signal, sys, traceback
sys.path.insert(0, sys.argv[1])
import torch
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.training import report
from patchmill.training.ranks import distributed, failures, signals
from patchmill.training.runtime import checkpoint, hooks
import helpers_methods, helpers_runs
report.write = lambda folder: folder / "report.html"

def run_rank(rank, task):
    os.environ.update(task["environ"], RANK=str(rank), LOCAL_RANK=str(rank))
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{task['folder']}/{rank}.{name}", os.O_WRONLY | os.O_CREAT), number)
    signal.alarm(task["timeout"])
    torch.set_num_threads(1)
    code = 0
    try:
        exec(compile(task["program"], "program", "exec"), globals())
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        print("" if isinstance(end.code, int) else end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)

def next_rendezvous():  # for programs with more than one process group
    os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)

for line in sys.stdin:
    task, ranks = json.loads(line), []
    for rank in range(task["size"]):
        ranks.append(os.fork())
        if not ranks[-1]:
            run_rank(rank, task)
    print([os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks], flush=True)
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def run(program: str, folder: Path, size: int = 2, timeout: int = 120) -> list[Ended]:
    """Run the program on `size` ranks; returns exit code and output of each, also in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(size))
    task = dict(program=textwrap.dedent(program), folder=str(folder), size=size)
    to_forks, from_forks = _forks()
    to_forks.write(json.dumps(task | dict(environ=environ, timeout=timeout)) + "\n")
    to_forks.flush()
    codes = json.loads(from_forks.readline())
    texts = [
        [(folder / f"{rank}.{it}").read_text() for it in ("out", "err")] for rank in range(size)
    ]
    return [Ended(code, *text) for code, text in zip(codes, texts, strict=True)]


def run_well(program: str, folder: Path, size: int = 2) -> list[str]:
    """Run the program on ranks that must all succeed; returns their standard output."""
    ended = run(program, folder, size)
    assert not any(it.code for it in ended), "\n".join(it.err for it in ended)
    return [it.out for it in ended]


@functools.cache
def _forks() -> tuple[IO[str], IO[str]]:
    """Pipes to the forking process, which ends with this one."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS, str(Path(__file__).parent)],
        env=os.environ | dict(OMP_NUM_THREADS="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    return process.stdin, process.stdout
