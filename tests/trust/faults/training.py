"""Training killed or out of disk space at any time, then resumed: weights and rows are the same."""

from __future__ import annotations

import functools
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import helpers_runs

from patchmill.training.runtime import checkpoint, records
from trust.check import Check, Outcome, Task
from trust.faults import limits, training_process
from trust.faults.memory_limit import SHARES
from trust.faults.training_process import Ended, Runs

# Thread.start waits forever for a thread that has no memory to start.
STARTING = re.compile(r'/threading\.py", line \d+ in start\n')


class Undisturbed(NamedTuple):
    """A run without a fault."""

    calls: int  # to the disk
    grown: int  # bytes of address space
    seconds: float
    final: dict[str, Any]
    log: dict[str, list[float | None]]
    evaluations: list[dict[str, Any]]
    files: set[str]


def kill(task: Task) -> Outcome:
    """Kill training in a call to the disk or at any time; half of the runs a second time."""
    return _each(task, _killed)


def fill_disk(task: Task) -> Outcome:
    """Let the disk be full from a call on, or for that call only; then free space."""
    return _each(task, _without_room)


def limit_memory(task: Task) -> Outcome:
    """Limit the memory to a random part of what the run needs; then remove the limit."""
    ends = Counter[str]()
    outcome = _each(task, functools.partial(_with_little_memory, ends))
    outcome.ends += ends
    return outcome


def _each(task: Task, disturb: Callable[[Runs, Task, int, Undisturbed, Path], str]) -> Outcome:
    outcome, runs = Outcome(), training_process.start()
    if runs is None:
        outcome.tried("left out, for want of a C compiler")
        return outcome
    whole = _undisturbed(runs)
    outcome.figures["calls to the disk"] = whole.calls
    out = task.folder / "tried"
    for index in range(task.tries):
        shutil.rmtree(out, ignore_errors=True)
        outcome.tried()
        if problem := disturb(runs, task, index, whole, out) or _torn(out / "run"):
            outcome.failed(f"try {index}: {problem}")
            continue
        ended = runs.train(out)
        if ended.code:
            outcome.failed(f"try {index}: it does not continue: {ended.err[-500:]}")
            continue
        _compare(outcome, index, whole, out / "run")
        task.note(f"{index + 1} disturbed runs, {outcome.failures} failures")
    return outcome


@functools.cache
def _undisturbed(runs: Runs) -> Undisturbed:
    start, out = time.monotonic(), runs.folder / "whole"
    ended = runs.train(out)
    if ended.code:
        raise RuntimeError(f"training fails without a fault: {ended.err}")
    folder, seconds = out / "run", time.monotonic() - start
    return Undisturbed(
        ended.calls,
        ended.grown,
        seconds,
        helpers_runs.final(folder),
        helpers_runs.logged(folder),
        records.evaluations(folder),
        _files(folder),
    )


def _killed(runs: Runs, task: Task, index: int, whole: Undisturbed, out: Path) -> str:
    draw = task.random(index)
    if index % 4 == 3:
        ended = runs.train(out, after=draw.uniform(0.02, 1) * whole.seconds)
    else:
        ended = runs.train(out, "kill", _moment(index, task, whole))
    if index % 2 and not (problem := _not_killed(ended) or _torn(out / "run")):
        ended = runs.train(out, "kill", draw.randrange(1, whole.calls))
    elif index % 2:
        return problem
    return _not_killed(ended)


def _not_killed(ended: Ended) -> str:
    """Problem if it failed without being killed; it may have finished before the kill."""
    return f"it ends with {ended.code}: {ended.err[-500:]}" if ended.code not in (0, -9) else ""


def _without_room(runs: Runs, task: Task, index: int, whole: Undisturbed, out: Path) -> str:
    fault = "full once" if index % 4 == 3 else "full"
    ended = runs.train(out, fault, _moment(index, task, whole))
    if "Traceback" in ended.err or ended.code not in (0, 1):
        return f"it ends with {ended.code}: {ended.err[-1500:]}"
    last = ended.err.splitlines()[-1] if ended.code else ""
    if ended.code and not (last.startswith("error: ") and "the disk is full" in last):
        return f"the error does not mention the full disk: {last}"
    return ""


def _with_little_memory(
    ends: Counter[str], runs: Runs, task: Task, index: int, whole: Undisturbed, out: Path
) -> str:
    draw = task.random(index)
    kind = draw.choice(sorted(SHARES))
    size = int(draw.uniform(*SHARES[kind]) * whole.grown)
    ended = runs.train(out, limit=(kind, size))
    if ended.code == -signal.SIGABRT and STARTING.search(ended.err):
        ends["Python waits for a thread"] += 1
        return ""
    last = ended.err.splitlines()[-1] if ended.code else ""
    native = bool(ended.code) and limits.is_native(last)
    ends["a C library" if native else "one sentence" if ended.code else "done"] += 1
    if native:
        return ""
    plain = last.startswith("error: ") and ("memory" in last or "thread" in last)
    if "Traceback" in ended.err or ended.code not in (0, 1) or (ended.code and not plain):
        return f"with {size >> 10:,} KiB it ends with {ended.code}: {ended.err[-1500:]}"
    return ""


def _moment(index: int, task: Task, whole: Undisturbed) -> int:
    """A call to the disk at which to fail, spread over the run across all tries."""
    part = whole.calls / task.tries
    return 1 + int((index + task.random(index).random()) * part)


def _torn(folder: Path) -> str:
    """Checkpoints under their final names that cannot be read."""
    for path in checkpoint.find_all(folder) if folder.exists() else ():
        try:
            checkpoint.load(path)
        except Exception as error:
            return f"{path.name}: {type(error).__name__} ({error})"
    return ""


def _compare(outcome: Outcome, index: int, whole: Undisturbed, folder: Path) -> None:
    """Compare the final state of a disturbed run with an undisturbed one."""
    try:
        helpers_runs.assert_same(whole.final, helpers_runs.final(folder))
    except AssertionError as error:
        outcome.failed(f"try {index}: weights differ: {error}")
        return
    log, steps = helpers_runs.logged(folder), records.read(folder)["step"]
    outcome.lost += len(set(whole.log["step"]) - set(steps))
    outcome.repeated += len(steps) - len(set(steps))
    problem = ""
    if log != whole.log:
        problem = f"log differs: {log['step']}, not {whole.log['step']}"
    elif (found := records.evaluations(folder)) != whole.evaluations:
        problem = f"evaluations differ: {found}, not {whole.evaluations}"
    elif (files := _files(folder)) != whole.files:
        problem = f"files differ: {sorted(files ^ whole.files)}"
    if problem:
        outcome.failed(f"try {index}: {problem}")


def _files(folder: Path) -> set[str]:
    """Names of all files except TensorBoard's, since every start adds one."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in paths if path.parts[0] != "tensorboard"}


CHECKS = (
    Check("kill-training", "training killed at any moment", kill, 1, 50, 200, 130),
    Check("memory-limit-training", "training in too little memory", limit_memory, 1, 40, 400, 90),
    Check("full-disk-training", "training on a disk that fills", fill_disk, 1, 50, 200, 100),
)
