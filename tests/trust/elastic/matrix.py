"""The same samples as one process, for any ranks, workers, pipeline, format, cache and stops.

Hypothesis draws ways to load two epochs. Order, labels and the hash of every sample's views must
equal those of one process that reads the folder without stopping, in the order given by the seed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from helpers_pipelines import RECIPE, make_loader
from hypothesis import HealthCheck, Phase, given, seed, settings

from patchmill.loaders.decoded import places
from patchmill.loaders.order import permutation
from trust.check import Check, Outcome, Task
from trust.elastic.ways import BAD, COUNT, EPOCHS, Leg, Way, pipelines, ways, write_formats

SEED = 5
FEW = 20  # with fewer tries only `threads` is drawn: the other pipelines are slow to start


class Sample(NamedTuple):
    id: int
    label: int
    views: str  # a hash of their pixels


Steps = list[list[Sample]]


def run(task: Task) -> Outcome:
    memory = task.folder / "memory"  # in place of /dev/shm, which others use
    memory.mkdir()
    compiling = compiled_once() if task.tries >= FEW else contextlib.nullcontext()
    with mock.patch.object(places, "SHARED_MEMORY", memory), quiet(), compiling:
        return _try_ways(task)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the log line for each bad sample of each loader."""
    log = logging.getLogger("patchmill")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Let loaders with the same number of threads share FFCV's compiled code, across eight ranks.

    Data, recipe and seed, which are compiled in, are the same for all.
    """
    if "ffcv" not in pipelines("beton"):
        yield
        return
    from patchmill.loaders.pipelines.ffcv import pipeline

    compile_file, files = pipeline.CompiledFile, dict[int, Any]()

    def shared(source: Any, operation: Any, max_batch: int, lanes: int) -> Any:
        if lanes not in files:
            files[lanes] = compile_file(source, operation, max_batch, lanes)
        return files[lanes]

    with mock.patch.object(pipeline, "CompiledFile", shared):
        yield


def _try_ways(task: Task) -> Outcome:
    outcome = Outcome()
    formats = write_formats(task.folder / "data")
    sizes = Counter[int]()
    reference = functools.cache(lambda batch, drop: _one_process(task.folder, formats, batch, drop))

    @seed(task.seed)
    @settings(
        max_examples=task.tries,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(ways(list(formats), every_pipeline=task.tries >= FEW))
    def each(way: Way) -> None:
        outcome.tried(way.form)
        sizes.update(leg.world_size for leg in way.legs if leg.pipeline == "ffcv")
        expected = reference(way.global_batch, way.drop_last)
        try:
            found = list(_steps(task.folder, formats, way))
        except Exception as error:
            outcome.failed(f"{way}: {type(error).__name__}: {error}")
            return
        outcome.lost += _more(expected, found)
        outcome.repeated += _more(found, expected)
        if found != expected:
            outcome.failed(f"{way}: {_difference(found, expected)}")
        if outcome.tries % 20 == 0:
            task.note(f"{outcome.tries} ways, {outcome.failures} failures so far")

    each()
    outcome.figures["pipelines"] = ", ".join(pipelines("beton"))
    outcome.figures["legs of FFCV, by ranks"] = {str(size): sizes[size] for size in sorted(sizes)}
    return outcome


def _one_process(folder: Path, formats: dict[str, Path], batch: int, drop_last: bool) -> Steps:
    """The steps of one process, whose ids must match the seed's order."""
    way = Way("folder", batch, drop_last, ())
    leg = Leg(1, 1, 1, "threads", "", way.steps)
    steps = list(_steps(folder, formats, Way("folder", batch, drop_last, (leg,))))
    bad = {id for id in range(COUNT) if _number(formats["folder"], id) in BAD}
    ids = [sample.id for step in steps for sample in step]
    each = len(ids) // EPOCHS
    expected = [id for epoch in range(EPOCHS) for id in _order(epoch, each, bad)]
    if ids != expected:
        raise RuntimeError("one process does not follow the seed's order")
    return steps


def _number(folder: Path, id: int) -> int:
    return int(sorted(folder.rglob("*.*"))[id].stem)


def _order(epoch: int, count: int, bad: set[int]) -> Iterator[int]:
    """The first samples of an epoch, with substitutes for bad ones."""
    for id in permutation.Order(COUNT, SEED).ids(epoch, 0, count).tolist():
        good, attempt = id, 0
        while good in bad:
            good = permutation.substitute(SEED, epoch, id, attempt, COUNT)
            attempt += 1
        yield good


def _steps(folder: Path, formats: dict[str, Path], way: Way) -> Iterator[list[Sample]]:
    """Yield the samples of all ranks together at each step, leg after leg."""
    state = None
    for leg in way.legs:
        crew = [_loader(folder, formats, way, leg, rank) for rank in range(leg.world_size)]
        if state is not None:
            for loader in crew:
                loader.load_state_dict(state)
        left = leg.steps
        while left:
            for batches in zip(*crew, strict=True):
                yield [sample for batch in batches for sample in _samples(batch)]
                left -= 1
                if not left:
                    break
        states = [loader.state_dict() for loader in crew]
        if any(other != states[0] for other in states):
            raise RuntimeError("the states of the ranks differ")
        state = states[0]
        for loader in crew:
            loader.close()


def _loader(folder: Path, formats: dict[str, Path], way: Way, leg: Leg, rank: int) -> Any:
    if way.form == "decoded":
        cache: str | None = f"disk:{folder / 'data' / 'decoded'}:5MB"
    else:
        cache = leg.cache.replace("disk:", f"disk:{folder / 'caches'}:") or None
    return make_loader(
        formats[way.form],
        RECIPE,
        way.global_batch // leg.world_size,
        seed=SEED,
        rank=rank,
        world_size=leg.world_size,
        workers=leg.workers,
        prefetch=leg.prefetch,
        pipeline=leg.pipeline,
        drop_last=way.drop_last,
        ledger=folder / f"ledger-{rank}",
        **({"cache": cache} if cache else {}),
    )


def _samples(batch: Any) -> Iterator[Sample]:
    views = [group.numpy() for group in batch.views.values()]
    for place, (id, label) in enumerate(
        zip(batch.ids.tolist(), batch.labels.tolist(), strict=True)
    ):
        digest = hashlib.blake2b(digest_size=8)
        for group in views:
            digest.update(group[place].tobytes())
        yield Sample(id, label, digest.hexdigest())


def _more(one: Steps, other: Steps) -> int:
    """Number of samples that one has more often than the other."""
    counts = [Counter(sample.id for step in steps for sample in step) for steps in (one, other)]
    return (counts[0] - counts[1]).total()


def _difference(found: Steps, expected: Steps) -> str:
    for number, (one, other) in enumerate(zip(found, expected, strict=False)):
        for mine, right in zip(one, other, strict=False):
            if mine != right:
                return f"step {number} has {mine}, not {right}"
    return f"{len(found)} steps, not {len(expected)}"


CHECKS = (
    Check("elastic-matrix", "ranks, pipelines, formats, caches, stops", run, 4, 120, 5000, 150),
)
