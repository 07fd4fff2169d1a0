"""Loaders killed while they fill a decoded cache, alone or in pairs, then run again.

The samples that they record after each batch, as training does, must finally equal those of a
loader without a cache.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from unittest import mock

import helpers_pipelines
import numpy as np
from helpers_shards import HOURS_AGO

from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.decoded import places, records, spec
from patchmill.loaders.decoded.opening import open_store
from patchmill.loaders.sources import open_source
from trust.check import Check, Outcome, Task
from trust.faults import disk_faults, noted
from trust.faults.disk_faults import KILL, Child, Ended
from trust.faults.noted import Loading, Seen

IMAGES, BAD = 40, (7, 21, 33)
KINDS, SIZES = ("disk", "ram"), ("1MB", "40KB")  # large enough for all images, or for some
MOST_KILLS = 2  # rounds before the loaders may finish


def run(task: Task) -> Outcome:
    """Kill loaders in a call to the disk, or at any time, once or twice, then let them finish."""
    outcome, data = Outcome(), _write_data(task.folder / "data")
    wanted = _seen_without_cache(task, data)
    moments = {
        (kind, size): _undisturbed(task, data, kind, size) for kind in KINDS for size in SIZES
    }
    found = 0
    for index in range(task.tries):
        rng = task.random(index)
        kind, size = KINDS[index % 2], rng.choice(SIZES)
        work = Loading(data, *_place(task, kind, size), rng.choice((1, 2)))
        name = f"seed {task.seed}, try {index}: {kind}:{size}, {work.loaders} loaders"
        outcome.tried(f"{kind}, {work.loaders} loader{'s' * (work.loaders > 1)}")
        problem = ""
        for _ in range(rng.randint(1, MOST_KILLS)):
            problem = problem or _kill(work, rng, moments[kind, size]) or _judge(work)
            found += _kept(work)
        if problem := problem or _finish(work) or _judge(work) or _left_over(work):
            outcome.failed(f"{name}: {problem}")
            continue
        for number in range(work.loaders):
            noted.compare(outcome, name, wanted, work.noted(number)["seen"])
        task.note(f"{index + 1} tries, {outcome.failures} failures so far")
    outcome.figures["images in caches after kills"] = found
    return outcome


# --------------------------------------------------------------------------------------- the data


def _write_data(root: Path) -> Path:
    root.mkdir()
    for number in range(IMAGES):
        data = helpers_pipelines.encoded(number)
        path = root / f"{number:02}.{'png' if number % 3 else 'jpg'}"
        path.write_bytes(data[:40] if number in BAD else data)
        os.utime(path, (HOURS_AGO, HOURS_AGO))
    return root


def _place(task: Task, kind: str, size: str) -> tuple[Path, str]:
    """An empty folder, and the `cache=` value for a cache in it."""
    folder = task.folder / "tried"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder, f"disk:{folder / 'cache'}:{size}" if kind == "disk" else f"ram:{size}"


def _seen_without_cache(task: Task, data: Path) -> Seen:
    """Samples that a loader without a cache sees; a loader with a cache must see the same.

    Both run in this process, so that all code is compiled before it forks.
    """
    seen = []
    with mock.patch.dict(os.environ), mock.patch.object(places, "SHARED_MEMORY"):
        for cached in (False, True):
            folder, cache = _place(task, "disk", SIZES[0])
            work = Loading(data, folder, cache if cached else "")
            work.go_on()
            seen.append(work.noted()["seen"])
    if seen[0] != seen[1]:
        raise RuntimeError("a cache changes the views, without a kill")
    return seen[0]


def _undisturbed(task: Task, data: Path, kind: str, size: str) -> tuple[int, float]:
    """Calls to the disk, and seconds, of a loader that is not killed."""
    work, began = Loading(data, *_place(task, kind, size)), time.monotonic()
    ended = disk_faults.run(work.go_on)
    if ended.failed or (problem := _judge(work) or _left_over(work)):
        raise RuntimeError(f"{work.cache} fails without a kill: {ended.output or problem}")
    return ended.calls, time.monotonic() - began


# --------------------------------------------------------------------------------------- the kills


def _kill(work: Loading, rng: random.Random, moments: tuple[int, float]) -> str:
    """Kill all loaders or one of two; return the problem with how they end."""
    calls, seconds = moments
    victims = set(range(work.loaders)) if rng.random() < 0.5 else {rng.randrange(work.loaders)}
    by_call = rng.random() < 0.5
    children = [
        Child(
            partial(work.go_on, number),
            KILL if by_call and number in victims else "",
            rng.randrange(calls),
        )
        for number in range(work.loaders)
    ]
    if not by_call:
        time.sleep(rng.uniform(0, seconds))
        for number in victims:
            os.kill(children[number].pid, signal.SIGKILL)  # not reaped yet, so the pid is valid
    return _problem([child.end() for child in children], victims)


def _finish(work: Loading) -> str:
    children = [Child(partial(work.go_on, number)) for number in range(work.loaders)]
    return _problem([child.end() for child in children], set())


def _problem(ended: list[Ended], victims: set[int]) -> str:
    for number, one in enumerate(ended):
        if one.failed or (one.killed and number not in victims):
            return f"loader {number} ended with: {one.output}"
    return ""


# ----------------------------------------------------------------------------------- the judgement


def _stores(work: Loading) -> list[Path]:
    return sorted(work.folder.rglob("*.decoded"))


def _judge(work: Loading) -> str:
    """Problem with the store on disk, between runs of loaders."""
    for path in _stores(work):
        most = records.pixels_at(IMAGES) + spec.parse(work.cache).capacity
        taken = max(path.stat().st_size, places.bytes_on_disk(path))
        if taken > -(-most // records.PAGE) * records.PAGE:
            return f"{path.name} takes {taken} bytes, more than {most}"
    if work.cache.startswith("disk"):
        return disk_faults.run(partial(_judge_images, work), cache=work.folder / "home").output
    return ""


def _judge_images(work: Loading) -> str:
    """Compare the images of the store with fresh decodes."""
    source = open_source(str(work.data))
    store = open_store(work.cache, source)
    assert store is not None
    for id in range(len(source)):
        if (image := store.image(id)) is None:
            continue
        try:
            sound = np.array_equal(image, decode(source.read(id)))
        except BadImage:
            sound = False
        if not sound:
            return f"image {id} is torn"
    return ""


def _kept(work: Loading) -> int:
    """Number of images that a store has records of."""
    count = 0
    for path in _stores(work):
        data = np.frombuffer(path.read_bytes(), np.uint8)[records.PAGE :]
        count += int(np.count_nonzero(data[: IMAGES * 32].view(records.RECORD)["height"]))
    return count


def _left_over(work: Loading) -> str:
    """Files left at the end that should not be there, and missing ones."""
    names = Counter(path.suffix for path in work.folder.rglob("*") if path.is_file())
    for kept in ("", ".index"):  # a note of the cache's folder, and an index of the data
        names.pop(kept, None)
    disk = work.cache.startswith("disk")
    wanted = Counter({".json": work.loaders} | ({".decoded": 1, ".lock": 1} if disk else {}))
    return "" if names == wanted else f"files are left over or missing: {dict(names)}"


CHECKS = (
    Check(
        "kill-caches", "loaders killed while they fill a decoded cache",
        run, short=2, standard=50, long=1500, seconds=65,
    ),
)  # fmt: skip
