"""Epoch after epoch at a steady pace: nothing grows, nothing slows down, no sample is missed.

One image in 200 is bad. A consumer takes batches at a pace that the loader can sustain; memory (as
the system counts it), file descriptors and threads are sampled a hundred times. On a shared machine
a lower rate says little: it counts only if the process also used more CPU time per sample.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from helpers_pipelines import GLANCE, make_loader
from helpers_shards import write_tar
from PIL import Image

from patchmill.loaders.order import permutation
from patchmill.loaders.sources.beton.writer import BetonWriter
from trust.check import Check, Outcome, Task
from trust.elastic.matrix import quiet

BATCH, SEED = 100, 3
PACE = 3000  # samples per second
MOST_SAMPLES, BAD_SHARE = 20_000, 200  # of the data; one sample in BAD_SHARE is bad
LOOKS = 100  # measurements of the process; the first fifth is warm-up
MOST_GROWTH, MOST_SLOWING, MOST_WORK = 0.02, 0.05, 0.25
ENOUGH = 100_000  # samples, for memory and rates to settle


@dataclass
class Looks:
    """Measurements of this process over time."""

    memory: list[int] = field(default_factory=list)  # bytes
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)  # CPU seconds

    def look(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
        self.descriptors.append(len(os.listdir("/proc/self/fd")))
        self.threads.append(len(os.listdir("/proc/self/task")))
        self.seconds.append(time.monotonic())
        self.work.append(time.process_time())


def run(task: Task, pipeline: str) -> Outcome:
    outcome, looks = Outcome(), Looks()
    count = min(MOST_SAMPLES, task.tries // 2)
    data, bad = _write_data(task.folder, count, pipeline)
    with quiet():
        _consume(task, outcome, looks, _loader(task, data, pipeline, count), count, bad)
    _judge_ledger(outcome, task.folder / "ledger", bad)
    _judge_growth(outcome, looks, task.tries)
    return outcome


def _loader(task: Task, data: Path, pipeline: str, count: int) -> Any:
    settings = {"pipeline": pipeline, "seed": SEED, "ledger": task.folder / "ledger"}
    loader = make_loader(data, GLANCE, BATCH, **settings)
    loader.ledger.limit = count  # more are bad here than a run tolerates
    return loader


def _write_data(folder: Path, count: int, pipeline: str) -> tuple[Path, set[int]]:
    """Write shards, or a .beton for FFCV; return the path and the ids of bad samples."""
    images = [_jpeg(number) for number in range(97)]
    bad = set(range(BAD_SHARE // 2, count, BAD_SHARE))
    data = (images[id % 97][:300] if id in bad else images[id % 97] for id in range(count))
    if pipeline == "ffcv":
        with BetonWriter(folder / "x.beton", count) as writer:
            for encoded in data:
                writer.add(encoded, 0)
        return folder / "x.beton", bad
    write_tar(folder / "x.tar", ((f"{id:06}.jpg", encoded) for id, encoded in enumerate(data)))
    return folder / "x.tar", bad


def _jpeg(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (32, 40, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def _consume(
    task: Task, outcome: Outcome, looks: Looks, loader: Any, count: int, bad: set[int]
) -> None:
    started, each = time.monotonic(), max(task.tries // LOOKS, BATCH)
    for epoch in range(-(-task.tries // count)):
        seen: list[int] = []
        for batch in loader:
            seen += batch.ids.tolist()
            outcome.tries += len(batch)
            if outcome.tries // each > len(looks.memory):
                looks.look()
            time.sleep(max(started + outcome.tries / PACE - time.monotonic(), 0))
        expected = list(_order(epoch, len(seen), count, bad))
        lost, more = Counter(expected) - Counter(seen), Counter(seen) - Counter(expected)
        outcome.lost += lost.total()
        outcome.repeated += more.total()
        if seen != expected:
            outcome.failed(f"epoch {epoch} does not follow the seed's order")
        if epoch % 10 == 9:
            task.note(f"{outcome.tries:,} samples, {looks.memory[-1] / 1e6:.0f} MB")
    loader.close()


def _order(epoch: int, stop: int, count: int, bad: set[int]) -> Iterator[int]:
    for id in permutation.Order(count, SEED).ids(epoch, 0, stop).tolist():
        good, attempt = id, 0
        while good in bad:
            good = permutation.substitute(SEED, epoch, id, attempt, count)
            attempt += 1
        yield good


def _judge_ledger(outcome: Outcome, ledger: Path, bad: set[int]) -> None:
    """Check that every bad sample is listed once, and nothing else is."""
    listed = [json.loads(line)["id"] for line in ledger.read_text().splitlines()]
    if sorted(listed) != sorted(bad):
        outcome.failed(f"the ledger lists {len(listed)} samples, {len(bad)} are bad")
    outcome.figures["bad samples, each listed once"] = len(listed)


def _judge_growth(outcome: Outcome, looks: Looks, samples: int) -> None:
    count = len(looks.memory)
    warm, tenth = count // 5, count // 10
    for name in ("descriptors", "threads"):
        numbers = getattr(looks, name)
        first, last = max(numbers[warm : 3 * warm]), max(numbers[-warm:])
        outcome.figures[name] = f"{first}, then {last}"
        if last > first:
            outcome.failed(f"{name} grew from {first} to {last}")
    if samples < ENOUGH:
        return
    first_memory = statistics.median(looks.memory[warm : warm + tenth])
    growth = statistics.median(looks.memory[-tenth:]) / first_memory - 1
    outcome.figures["memory growth after warm-up"] = f"{growth:+.1%} of {first_memory / 1e6:.0f} MB"
    if abs(growth) > MOST_GROWTH:
        outcome.failed(f"memory grew by {growth:+.1%}")
    slowing = _span(looks.seconds, -tenth - 1, tenth) / _span(looks.seconds, warm, tenth) - 1
    work = _span(looks.work, -tenth - 1, tenth) / _span(looks.work, warm, tenth) - 1
    outcome.figures["time of the last tenth"] = f"{slowing:+.1%} against the first's"
    outcome.figures["work of the last tenth"] = f"{work:+.1%} against the first's"
    if slowing > MOST_SLOWING and work > MOST_WORK:
        outcome.failed(f"a sample takes {slowing:.0%} longer, and {work:.0%} more CPU time")


def _span(times: list[float], start: int, looks: int) -> float:
    return times[start + looks] - times[start]


def threads(task: Task) -> Outcome:
    return run(task, "threads")


def dali(task: Task) -> Outcome:
    return run(task, "dali")


def ffcv(task: Task) -> Outcome:
    return run(task, "ffcv")


_TITLE = "a steady pace, one sample in 200 bad"
CHECKS = (
    Check("soak-threads", _TITLE, threads, 2_000, 600_000, 10_000_000, 200),
    # DALI's memory takes 200,000 samples to settle
    Check("soak-dali", _TITLE, dali, 2_000, 1_000_000, 1_000_000, 350, ("nvidia.dali",)),
    Check("soak-ffcv", _TITLE, ffcv, 2_000, 200_000, 1_000_000, 70, ("ffcv",)),
)
