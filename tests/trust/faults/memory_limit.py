"""Loaders and commands in processes with a real memory limit, then run without the limit.

A process with too little memory must say so in one sentence, unless a C library ends it. The
samples recorded by then, and those recorded without the limit afterwards, must together be
complete.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import helpers_prepare as making
from helpers_shards import HOURS_AGO

from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.decoded import places
from patchmill.loaders.prepare import make_data, make_masks
from patchmill.loaders.prepare.make_masks import MaskOptions
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.recipe import Crop, Recipe, Views
from patchmill.loaders.sources import open_source
from trust.check import Check, Outcome, Task
from trust.faults import disk_faults, limits, noted
from trust.faults.noted import Loading

IMAGES, SIDES = 16, (300, 1200)
# With less than that, Python waits forever for a thread that it started.
SHARES = {"AS": (0.05, 1.0), "DATA": (0.05, 0.5)}  # of the address space that work needs
RECIPE = Recipe((Views("view", 2, 64, Crop((0.2, 1.0))),), name="views")


class Work(NamedTuple):
    """Work in a folder, and the result it leaves there."""

    name: str
    do: Callable[[Path], str]
    result: Callable[[Path], object]


def run(task: Task) -> Outcome:
    """Limit each kind of work to a random part of the memory that it needs."""
    outcome, data = Outcome(), _write_data(task.folder / "data")
    works = _works(data)
    for number, work in enumerate(works[: task.tries]):
        folder = _empty(task)
        with mock.patch.dict(os.environ), mock.patch.object(places, "SHARED_MEMORY"):
            work.do(folder)  # so that all code is compiled and imported before the fork
        wanted, needs = work.result(folder), _measure(work, _empty(task))
        for index in range(number, task.tries, len(works)):
            rng, folder = task.random(index), _empty(task)
            limit = rng.choice(sorted(SHARES))
            size = int(rng.uniform(*SHARES[limit]) * needs)
            name = f"{work.name}, {size >> 10:,} of {needs >> 10:,} KiB, by RLIMIT_{limit}"
            outcome.tried()
            if problem := _try(outcome, work, folder, limit, size):
                outcome.failed(f"seed {task.seed}, try {index}: {name}: {problem}")
                continue
            task.note(f"{name}: {dict(outcome.ends)}")
            result = work.result(folder)
            if isinstance(wanted, list) and isinstance(result, list):
                noted.compare(outcome, name, wanted, result)
            elif result != wanted:
                outcome.failed(f"{name}: result is {result}, not {wanted}")
        task.note(f"{work.name}: {outcome.failures} failures so far")
    return outcome


def _try(outcome: Outcome, work: Work, folder: Path, limit: str, size: int) -> str:
    """Do the work under a limit, then without; return the problem with how either ends."""
    ended = disk_faults.run(lambda: _limited(limit, size, lambda: work.do(folder)))
    native = ended.failed and limits.is_native(ended.output)
    outcome.ends["a C library" if native else "one sentence" if ended.failed else "done"] += 1
    if ended.failed and not native and ("\n" in ended.output or not _says_memory(ended.output)):
        return f"no one-line error about lack of memory: {ended.output}"
    if not ended.failed and ended.output:
        return f"it ends with {ended.output}"
    ended = disk_faults.run(lambda: work.do(folder))
    return f"it does not continue without the limit: {ended.output}" if ended.output else ""


def _says_memory(output: str) -> bool:
    return any(word in output for word in ("memory", "thread"))


def _limited(limit: str, size: int, work: Callable[[], str]) -> str:
    with limits.limited(limit, size):
        return work()


def _measure(work: Work, folder: Path) -> int:
    """Bytes of address space that the work needs."""

    def measured() -> str:
        limits.give_back()
        first = limits.used()["VmSize"]
        return work.do(folder) or f"{limits.peak() - first}"

    ended = disk_faults.run(measured)
    if ended.failed:
        raise RuntimeError(f"{work.name} fails without a limit: {ended.output}")
    return int(ended.output)


def _empty(task: Task) -> Path:
    folder = task.folder / "tried"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


# -------------------------------------------------------------------------------- the kinds of work


def _write_data(root: Path) -> Path:
    """Write photos of many sizes, and large files."""
    sides = random.Random(0)
    for number in range(IMAGES):
        height, width = sides.randint(*SIDES), sides.randint(*SIDES)
        photo = {f"{number:02}.jpg": making.jpeg(number, height, width)}
        making.write_folder(root / "photos", photo)
        large = {f"{number:02}.jpg": making.bulky(number, sides.randint(1 << 18, 1 << 21))}
        making.write_folder(root / "bulky", large)
    for path in [*root.rglob("*"), root]:
        os.utime(path, (HOURS_AGO, HOURS_AGO))
    return root


def _works(data: Path) -> list[Work]:
    photos = data / "photos"
    found = [
        _loading("a loader", photos),
        _loading("a loader with a cache", photos, "ram:16MB"),
        _command("shards", lambda folder: _prepare(data / "bulky", folder)),
        _command("masks", lambda folder: _make_masks(photos, folder)),
    ]
    if importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali"):
        found.append(_loading("a loader with DALI", photos, pipeline="dali"))
    return found


def _loading(name: str, data: Path, cache: str = "", pipeline: str = "threads") -> Work:
    settings = (("pipeline", pipeline), ("workers", 3))

    def of(folder: Path) -> Loading:
        return Loading(data, folder, cache, 1, RECIPE, 4, settings)

    return Work(name, lambda folder: of(folder).go_on(), lambda folder: of(folder).noted()["seen"])


def _command(name: str, do: Callable[[Path], object]) -> Work:
    """Work that ends like a command."""

    def run(folder: Path) -> str:
        try:
            run_command(lambda: (do(folder), None)[1])
        except SystemExit as ended:
            if ended.code:
                raise MillError(str(ended.code)) from None
        return ""

    return Work(name, run, making.content)


def _prepare(data: Path, folder: Path) -> object:
    options = Options("shards", shard_size=8_000_000)
    return make_data.make(open_source(data), folder / "shards", options, workers=2)


def _make_masks(data: Path, folder: Path) -> object:
    options = MaskOptions("gs", 64, 0, 1)
    return make_masks.make(open_source(data), folder / "x.masks", options, 2)


CHECKS = (
    Check(
        "memory-limit", "loaders and commands in too little memory",
        run, short=2, standard=100, long=3000, seconds=100,
    ),
)  # fmt: skip
