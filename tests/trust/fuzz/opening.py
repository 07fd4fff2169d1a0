"""Open mutated data as a user would, and distinguish allowed outcomes from failures."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.bad_image import BadImage
from trust.check import Outcome, Task
from trust.fuzz.mutations import mutate

_MOST_MEMORY = 32 << 30  # bytes beyond those in use; thread pools and pyarrow reserve many
_STEPS = 20

Sample = tuple[bytes, int | None]
Fit = Callable[[bytes], bytes]
Change = Callable[[bytes, random.Random, bytes], bytes]  # mutates a seed, with parts of another


class Changes(NamedTuple):
    """Mutate a seed, with parts of another, and update its checksums."""

    change: Change
    fit: Fit

    def made(self, data: bytes, other: bytes, draw: random.Random) -> bytes:
        return self.fitted(self.change(data, draw, other), draw)

    def fitted(self, data: bytes, draw: random.Random) -> bytes:
        return self.fit(data) if draw.random() < 0.5 else data


def fuzz(
    task: Task,
    outcome: Outcome,
    seeds: list[bytes],
    open_mutated: Callable[[bytes, Path], str],
    change: Change = mutate,
    fit: Fit = lambda data: data,
) -> None:
    """Change seeds, and open each with `open_mutated(data, an unused path)`.

    `fit` updates the checksums of changed data, if any; it is applied to half of the inputs.

    `open_mutated` returns the outcome of the try, and raises AssertionError for a wrong sample. Any
    exception except a one-sentence MillError is a failure.
    """

    def one(number: int, data: bytes) -> None:
        try:
            end = open_mutated(data, task.folder / f"{number}")
        except MillError as error:
            end = "error"
            if not str(error) or "\n" in str(error):
                outcome.failed(f"not one sentence with seed {task.seed}/{number}: {error!r}")
        except Exception as error:
            end = "failed"
            where = traceback.extract_tb(error.__traceback__)[-1]
            outcome.failed(
                f"{type(error).__name__} with seed {task.seed}/{number}: {str(error)[:200]} "
                f"({Path(where.filename).name}:{where.lineno})"
            )
        outcome.tried(end)

    with quietly(), limited_memory():
        drive(task, outcome, seeds, Changes(change, fit), one)


def _drive(
    task: Task,
    outcome: Outcome,
    seeds: list[bytes],
    changes: Changes,
    one: Callable[[int, bytes], None],
) -> None:
    """Try random changes."""
    for number in range(task.tries):
        rng = task.random(number)
        one(number, changes.made(rng.choice(seeds), rng.choice(seeds), rng))
        if number % max(task.tries // _STEPS, 1) == 0:
            task.note(f"{number:,} of {task.tries:,}")


drive = _drive  # `guided_process` puts atheris in its place


def read_all(source: Any, expected: list[Sample] | None = None) -> str:
    """Read all samples; AssertionError for one that differs from `expected`.

    "ledger" if some could not be read, "whole" if all could.
    """
    count, bad = len(source), 0
    labels = source.labels
    if expected is not None:
        assert count == len(expected), f"{count} samples, not {len(expected)}"
    for id in range(min(count, 50)):
        assert source.where(id)
        with contextlib.suppress(OSError):
            source.stamp(id)
        try:
            data = bytes(source.read(id))
        except (OSError, BadImage) as error:
            assert str(error) and "\n" not in str(error), f"not one sentence: {error!r}"
            bad += 1
            continue
        label = None if labels is None else int(labels[id])
        if expected is not None:
            assert (data, label) == expected[id], f"sample {id} differs"
    return "ledger" if bad else "whole"


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress warnings, progress and fsync."""
    logging.disable(logging.CRITICAL)
    try:
        with mock.patch.object(os, "fsync", lambda file: None):
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def cache_at(folder: Path | str) -> Iterator[None]:
    with mock.patch.dict(os.environ, PATCHMILL_CACHE=str(folder)):
        yield


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Limit memory, so that huge allocations raise MemoryError."""
    try:
        import resource

        before = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + _MOST_MEMORY, before[1])
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
