"""Sources that fail, stall, lie or change while being read: no sample is lost or repeated."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from helpers_odd_entries import add_odd_entries
from helpers_odd_images import jpeg, picture, saved

from patchmill import loaders
from patchmill.loaders.order import permutation
from patchmill.loaders.order.permutation import MOST_SUBSTITUTES
from patchmill.loaders.sources import open_source
from trust.check import Check, Outcome, Task
from trust.odd.pil import RECIPE, Encoded

COUNT, BATCH = 48, 8


def run(task: Task) -> Outcome:
    outcome = Outcome()
    pipelines = ["threads"] + ["dali"] * bool(importlib.util.find_spec("nvidia.dali"))
    for index in range(task.tries):
        random = task.random(index)
        name, pipeline = random.choice(list(KINDS)), random.choice(pipelines)
        folder = task.folder / str(index)
        folder.mkdir()
        source, disturb = KINDS[name](random, folder)
        outcome.tried(name)
        try:
            _check(
                outcome, f"{name}, {pipeline} ({index})", source, disturb, pipeline, random, folder
            )
        except Exception as error:
            outcome.failed(f"{name}, {pipeline} ({index}): {type(error).__name__}: {error}")
    return outcome


def _check(
    outcome: Outcome,
    what: str,
    source: Any,
    disturb: Callable[[int], None],
    pipeline: str,
    random: Random,
    folder: Path,
) -> None:
    """Load two epochs; the first may be left early and resumed by another loader."""
    seed, stop = random.randrange(100), random.randrange(COUNT // BATCH + 1)

    def build() -> Any:
        loader = loaders.build(
            source, RECIPE, BATCH, pipeline=pipeline, seed=seed, workers=random.choice((1, 2, 3)),
            ledger=folder / "ledger.jsonl", drop_last=False,
        )  # fmt: skip
        loader.ledger.limit = 1 << 30
        return loader

    loader = build()
    count = len(loader.source)
    ids, ledgers = [list[int](), list[int]()], [loader.ledger]
    for step, batch in enumerate(loader, 1):
        disturb(step)
        ids[0] += batch.ids.tolist()
        if step == stop:
            break
    state = loader.state_dict()
    loader.close()
    loader = build()
    loader.load_state_dict(state)
    ledgers.append(loader.ledger)
    while (epoch := loader.epoch) < 2:
        for batch in loader:
            ids[epoch] += batch.ids.tolist()
    loader.close()
    bad = set().union(*(ledger._bad for ledger in ledgers))
    for epoch, found in enumerate(ids):
        wanted = permutation.Order(count, seed).ids(epoch, 0, count).tolist()
        outcome.repeated += max(len(found) - count, 0)
        outcome.lost += max(count - len(found), 0)
        for id, got in zip(wanted, found, strict=False):
            if got != id and not (id in bad and got in _substitutes(seed, epoch, id, count)):
                outcome.lost += 1
                outcome.failed(f"{what}: {got} replaces {id}, which is not in the ledger")


def _substitutes(seed: int, epoch: int, id: int, count: int) -> set[int]:
    attempts = range(MOST_SUBSTITUTES)
    return {permutation.substitute(seed, epoch, id, attempt, count) for attempt in attempts}


# ------------------------------------------------------------------------------------- the sources


def _images(count: int = COUNT) -> list[bytes]:
    return [
        saved(picture(n, 20, 30), "PNG") if n % 4 == 3 else jpeg(n, 20 + n % 9, 30)
        for n in range(count)
    ]


class Disturbed(Encoded):
    """Images in memory; `on_read` may wait, raise, or return other bytes."""

    def __init__(self, on_read: Callable[[int, bytes], bytes]) -> None:
        super().__init__("disturbed", _images())
        self.on_read = on_read

    def read(self, index: int) -> bytes:
        return self.on_read(index, self.files[index])


Made = tuple[Any, Callable[[int], None]]  # a source, and a function called after each batch


def _nothing(step: int) -> None:
    pass


def failing(random: Random, folder: Path) -> Made:
    """Some samples always fail, others occasionally."""
    broken = set(random.sample(range(COUNT), 6))
    errors = (
        OSError(5, "Input/output error"),
        TimeoutError("timed out"),
        PermissionError(13, "no"),
    )

    def on_read(index: int, data: bytes) -> bytes:
        if index in broken or random.random() < 0.03:
            raise random.choice(errors)
        return data

    return Disturbed(on_read), _nothing


def slow(random: Random, folder: Path) -> Made:
    def on_read(index: int, data: bytes) -> bytes:
        time.sleep(random.choice((0, 0, 0, 0.002, 0.01)))
        return data

    return Disturbed(on_read), _nothing


def cut(random: Random, folder: Path) -> Made:
    """Reads that occasionally end too early."""

    def on_read(index: int, data: bytes) -> bytes:
        return data[: random.randrange(len(data))] if random.random() < 0.1 else data

    return Disturbed(on_read), _nothing


def changing(random: Random, folder: Path) -> Made:
    """A different image on each read of a sample."""
    images = _images()
    return Disturbed(lambda index, data: random.choice(images)), _nothing


def files(random: Random, folder: Path) -> Made:
    """A folder whose files are removed, cut, replaced, emptied or made unreadable meanwhile."""
    root = folder / "images"
    root.mkdir()
    images = _images()
    for number, data in enumerate(images):
        (root / f"{number:02}.jpg").write_bytes(data)
    add_odd_entries(root)

    def disturb(step: int) -> None:
        path = root / f"{random.randrange(COUNT):02}.jpg"
        what = random.choice(("remove", "cut", "empty", "replace", "swap", "pipe", "link"))
        if what == "swap":  # by renaming
            (root / "other").write_bytes(random.choice(images))
            os.replace(root / "other", path)
        elif not path.is_file():
            return
        elif what == "replace":
            path.write_bytes(random.choice(images))
        elif what in ("cut", "empty"):
            os.truncate(path, path.stat().st_size // 2 if what == "cut" else 0)
        else:
            path.unlink()
            if what == "pipe":
                os.mkfifo(path)
            elif what == "link":
                path.symlink_to(path.name)

    return open_source(root), disturb  # listed once


KINDS: dict[str, Callable[[Random, Path], Made]] = {
    kind.__name__: kind for kind in (failing, slow, cut, changing, files)
}

CHECKS = (
    Check(
        "faults-sources", "failing, slow, cut and changing sources", run,
        short=6, standard=200, long=2000, seconds=80,
    ),
)  # fmt: skip
