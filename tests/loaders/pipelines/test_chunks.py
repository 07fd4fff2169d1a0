"""Chunks: every slot once, evenly over the workers, and batches that do not depend on them."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_pipelines import RECIPE, Pictures, encoded, make_loader, mill_threads
from hypothesis import given
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.operations import GaussianNoise
from patchmill.loaders.order import permutation
from patchmill.loaders.pipelines import chunks, samples
from patchmill.loaders.pipelines.chunks import LEAST_PER_WORKER, WORK_NS, chunk_size, cut
from patchmill.loaders.pipelines.dali import gather
from patchmill.loaders.recipe import Crop, Recipe, Views
from patchmill.loaders.sources import open_source
from patchmill.loaders.stats import Counters

SIZE = 24


def counted(samples: int, sample_ns: int) -> Counters:
    counters = Counters(("read", "plan"))
    counters.add("read", samples * sample_ns // 2, samples)
    counters.add("plan", samples * sample_ns - samples * sample_ns // 2, samples)
    return counters


# -------------------------------------------------------------------------------------- the cutting


@given(size=st.integers(0, 3000), workers=st.integers(1, 200), sample_ns=st.integers(0, 10**9))
def test_every_slot_is_in_one_chunk_and_no_worker_gets_much_more(
    size: int, workers: int, sample_ns: int
) -> None:
    cuts = cut(size, [counted(7, sample_ns)] * workers)
    assert [slot for slots in cuts for slot in slots] == list(range(size))
    longest = max(map(len, cuts), default=1)
    assert longest <= max(size / (LEAST_PER_WORKER * workers), 1)
    assert longest == 1 or longest * sample_ns <= WORK_NS
    assert len(cuts) >= min(size, LEAST_PER_WORKER * workers)


def test_chunks_are_as_large_as_the_time_for_a_sample_allows() -> None:
    assert chunk_size(1024, 2, sample_ns=5_000_000) == 1
    assert chunk_size(1024, 2, sample_ns=100_000) == 10
    assert chunk_size(1024, 2, sample_ns=1_000) == 1024 // 8
    assert chunk_size(64, 16, sample_ns=1_000) == 1
    assert chunk_size(64, 16, sample_ns=1_000, least=32) == 32
    assert chunk_size(64, 16, sample_ns=100_000, least=32) == 32
    assert chunk_size(64, 16, sample_ns=1_000_000, least=32) == 1
    assert chunk_size(1024, 2, sample_ns=1_000, least=32) == 1024 // 8
    assert len(cut(64, [Counters(("read", "plan"))])) == 64  # nothing is measured yet


# ------------------------------------------------------------------------------------------ batches


@pytest.fixture
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Make loaders cut batches into chunks of this many slots."""
    monkeypatch.setattr(chunks, "chunk_size", lambda *_: request.param)
    return request.param


def rendered(loader: Any) -> list[tuple[list[int], dict[str, np.ndarray]]]:
    return [
        (batch.ids.tolist(), {n: views.float().numpy() for n, views in batch.views.items()})
        for batch in loader
    ]


def bad(*ids: int) -> Pictures:
    def read(index: int) -> None:
        if index in ids:
            raise OSError(f"picture {index} is gone")

    return Pictures(60, read)


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("size", [5, 24, 100])
def test_batches_do_not_depend_on_chunks(
    size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where bad samples lie between others, and with operations on parts of a batch."""
    noisy = Views("noisy", 2, 12, Crop((0.4, 1.0)), extra=(GaussianNoise(),))
    recipe = Recipe((*RECIPE.views, noisy), name="noisy")
    missing = permutation.Order(60, 0).ids(0, 0, 60)[[3, 12, 13, 40]].tolist()

    def run(chunk: int) -> tuple[Any, str]:
        monkeypatch.setattr(chunks, "chunk_size", lambda *_: chunk)
        ledger = tmp_path / f"{chunk}.jsonl"
        loader = make_loader(bad(*missing), recipe, SIZE, ledger=ledger)
        batches = rendered(loader)
        stages = loader.stats().stages
        loader.close()
        assert stages["plan"].items == 48 and stages["read"].items == 48
        return batches, "".join(sorted(ledger.read_text().splitlines(keepends=True)))

    (batches, ledger), (others, other_ledger) = run(1), run(size)
    assert ledger == other_ledger
    assert len(batches) == len(others) == 2
    for (ids, views), (other_ids, other_views) in zip(batches, others, strict=True):
        assert ids == other_ids
        for name in views:
            np.testing.assert_array_equal(views[name], other_views[name])


@pytest.mark.usefixtures("pipeline")
def test_files_that_are_read_together_are_those_that_are_read_singly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where one is gone, one is cut short, one is empty, and one is too large for that."""
    monkeypatch.setattr(samples, "_ENCODED_BYTES", 40_000)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.jpg").write_bytes(encoded(number) + bytes(50_000 * (number == 7)))
    source = open_source(folder)
    (folder / "11.jpg").unlink()
    (folder / "23.jpg").write_bytes(b"")
    (folder / "42.jpg").write_bytes(encoded(42)[:90])
    monkeypatch.setattr(gather, "BLOCK_BYTES", 40_000)
    chunk_sizes = []

    def watched(read: Any) -> Any:
        return lambda ids, memory: chunk_sizes.append(len(ids)) or read(ids, memory)

    for name in ("read_many", "read_into"):  # the latter for DALI
        monkeypatch.setattr(source, name, watched(getattr(source, name)))

    def run(chunk: int) -> tuple[Any, set[str]]:
        monkeypatch.setattr(chunks, "chunk_size", lambda *_: chunk)
        ledger = tmp_path / f"{chunk}.jsonl"
        with contextlib.closing(make_loader(source, RECIPE, 20, ledger=ledger)) as loader:
            return rendered(loader), set(ledger.read_text().splitlines())

    (batches, bad), (others, other_bad) = run(1), run(20)
    assert bad == other_bad and len(bad) == 3
    assert chunk_sizes.count(20) == 3
    np.testing.assert_equal(batches, others)


@pytest.mark.usefixtures("pipeline", "chunk")
@pytest.mark.parametrize("chunk", [8], indirect=True)
def test_an_error_inside_a_chunk_ends_the_iteration() -> None:
    ids = permutation.Order(48, 0).ids(0, 0, 48).tolist()

    def read(index: int) -> None:
        if index == ids[SIZE + 11]:
            raise ZeroDivisionError

    batches = iter(make_loader(Pictures(48, read), batch_size=SIZE))
    assert next(batches).ids.tolist() == ids[:SIZE]
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert not mill_threads()


@pytest.mark.usefixtures("pipeline", "chunk")
@pytest.mark.parametrize("chunk", [SIZE], indirect=True)
def test_a_chunk_ends_at_the_next_slot_when_the_iteration_is_over() -> None:
    reads: list[int] = []
    reading, closing = threading.Event(), threading.Event()

    def read(index: int) -> None:
        reads.append(index)
        if len(reads) == 3:
            reading.set()
            closing.wait(60)

    loader = make_loader(Pictures(SIZE, read), batch_size=SIZE, workers=1, prefetch=1)

    def close() -> None:
        reading.wait(60)
        (job,) = loader._run._jobs
        threading.Thread(target=lambda: wait_for(lambda: job.cancelled) or closing.set()).start()
        loader.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(MillError, match="this iteration is over"):
        list(loader)
    closer.join(60)
    assert len(reads) == 3


def wait_for(condition: Any) -> None:
    pause = threading.Event()
    while not condition():
        pause.wait(0.001)
