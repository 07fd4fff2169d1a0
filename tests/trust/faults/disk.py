"""Kills at any call to the disk, or a full disk, then another run: the files are the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from patchmill.loaders.decoded import places
from trust.check import Check, Outcome, Task
from trust.faults import disk_faults, disk_work, small_disk
from trust.faults.disk_faults import FULL, KILL, Ended
from trust.faults.disk_work import Work


class Undisturbed(NamedTuple):
    """A kind of work without a fault: its calls to the disk, and the files it leaves."""

    work: Work
    calls: int
    files: dict[str, bytes]
    pages: int  # size of the files


def kill(task: Task) -> Outcome:
    """Kill each kind of work in the middle of a call, once or twice, then continue."""
    return _each_fault(task, lambda one, at, folder: _faulty(one, KILL, at, folder))


def fill_disk(task: Task) -> Outcome:
    """Let the disk be full from a call on, then free space, and continue."""
    return _each_fault(task, lambda one, at, folder: _faulty(one, FULL, at, folder))


def fill_small_disk(task: Task) -> Outcome:
    """Work on a disk with too few pages, then enlarge it, and continue."""
    if not small_disk.allowed():
        return _each_fault(task, lambda one, at, folder: _faulty(one, FULL, at, folder))
    return _each_fault(task, _on_small_disk)


def _each_fault(task: Task, attempt: Callable[[Undisturbed, int, Path], str]) -> Outcome:
    """Try faults at times spread over all kinds of work."""
    outcome = Outcome()
    works = disk_work.works(disk_work.write_data(task.folder / "data"))
    for number, work in enumerate(works):
        share = len(range(number, task.tries, len(works)))
        if not share:
            continue
        one = _undisturbed(work, task.folder)
        outcome.figures[f"{work.name}, calls to the disk"] = one.calls
        for index in range(share):
            at = int((index + task.random(index).random()) * one.calls / share)
            outcome.tried(work.name)
            if problem := attempt(one, at, _empty(task.folder)):
                outcome.failed(f"{work.name}, call {at} of {one.calls}: {problem}")
        task.note(f"{work.name}: {share} tries, {outcome.failures} failures so far")
    return outcome


def _undisturbed(work: Work, root: Path) -> Undisturbed:
    folder = _empty(root)
    ended = disk_faults.run(disk_work.in_folder(work, folder))
    if ended.failed:
        raise RuntimeError(f"{work.name} fails without a fault: {ended.output}")
    blocks = sum(path.stat().st_blocks for path in folder.rglob("*"))
    pages = blocks * 512 // small_disk.PAGE
    return Undisturbed(work, ended.calls, disk_faults.listed(folder), pages)


def _empty(root: Path) -> Path:
    """The same folder for all, since cache entries are named by path."""
    folder = root / "tried"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _faulty(one: Undisturbed, fault: str, at: int, folder: Path) -> str:
    """Problem found after a fault or after continuing; empty if none."""
    ended = disk_faults.run(disk_work.in_folder(one.work, folder), fault, at)
    return _problem(one, fault, ended, folder) or _go_on(one, folder)


def _problem(one: Undisturbed, fault: str, ended: Ended, folder: Path) -> str:
    """Problem with how disturbed work ended, or with what it left."""
    if fault == KILL and not ended.killed and ended.failed:
        return f"it failed before it was killed: {ended.output}"
    if fault == FULL and ended.failed and not _says_full(ended.output):
        return f"no one-line error about the full disk: {ended.output}"
    problem = _judged(one, folder, whole=False)
    return "" if fault == FULL and _says_full(problem) else problem  # the disk is still full


def _says_full(output: str) -> bool:
    return "\n" not in output and os.strerror(28) in output


def _go_on(one: Undisturbed, folder: Path) -> str:
    ended = disk_faults.run(disk_work.in_folder(one.work, folder))
    if ended.failed or ended.output:
        return f"it does not continue: {ended.output}"
    return _judged(one, folder, whole=True)


def _judged(one: Undisturbed, folder: Path, whole: bool) -> str:
    """Judge in a separate child, since judging maps files that change afterwards."""
    place = folder.with_name("judged")  # with its own indexes
    ended = disk_faults.run(lambda: one.work.judge(folder, one.files, whole), cache=place)
    when = "in the end" if whole else "after the fault"
    return f"{when}: {ended.output}" if ended.output else ""


# ------------------------------------------------------------------------------------- small disks


def _on_small_disk(one: Undisturbed, at: int, folder: Path) -> str:
    """Like `_faulty`, on a disk with only some of the pages that the work needs."""
    few = max(2, one.pages * at // max(one.calls, 1))

    def on_few() -> str:
        places.check_free_space = lambda *_: None  # others fill the disk after the check
        ended = disk_faults.run(disk_work.in_folder(one.work, folder))
        return _problem(one, FULL, ended, folder)

    return small_disk.run(folder, few, 4 * one.pages + 8192, on_few, lambda: _go_on(one, folder))


CHECKS = (
    Check("kill-writers", "killed in any call to the disk", kill, 6, 90, 3000, 150),
    Check("full-disk", "a full disk from any call on", fill_disk, 6, 180, 3000, 70),
    Check("small-disk", "disks of too few pages", fill_small_disk, 2, 90, 600, 90),
)
