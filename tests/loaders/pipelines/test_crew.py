"""Threads of an iteration: cancelled at any moment, from any thread, with nobody left waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers_pipelines import RECIPE, Pictures, make_loader, mill_threads

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines import memory
from patchmill.loaders.pipelines.job import Countdown, Job


def in_a_thread(function: Callable[[], Any]) -> list[Any]:
    """Run in a thread: its result or exception, in a list; a thread that hangs fails the test."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "the thread hangs"
    return results


# ------------------------------------------------------------------------------------------ waiting


def test_a_countdown_opens_with_the_last_item() -> None:
    countdown = Countdown(3)
    for _ in range(2):
        countdown.count_down()
        assert not countdown.done
    countdown.count_down()
    assert countdown.done
    assert in_a_thread(countdown.wait) == [None]
    assert in_a_thread(countdown.wait) == [None]  # over it stays


def test_a_countdown_opens_with_the_first_error_and_returns_it_once() -> None:
    countdown, errors = Countdown(3), [KeyError("first"), KeyError("second")]
    for error in errors:
        countdown.count_down(error)
    assert countdown.done
    assert in_a_thread(countdown.wait) == errors[:1]


def test_a_cancelled_countdown_returns_that_the_iteration_is_over() -> None:
    countdown = Countdown(3)
    countdown.cancel()
    assert countdown.done
    assert isinstance(countdown.wait(), MillError)
    countdown.count_down()
    countdown.cancel()
    assert countdown.done


def test_a_countdown_may_be_cancelled_inside_count_down() -> None:
    """The garbage collector may do so while the thread holds the lock."""
    countdown = Countdown(1)
    assert in_a_thread(lambda: with_lock(countdown._lock, countdown.cancel)) == [None]
    assert isinstance(countdown.wait(), MillError)


def with_lock(lock: Any, function: Callable[[], None]) -> None:
    with lock:
        function()


def test_a_waiting_thread_wakes() -> None:
    for end in (Countdown.count_down, Countdown.cancel):
        countdown = Countdown(1)
        timer = threading.Timer(0.05, end, (countdown,))
        timer.start()
        (result,) = in_a_thread(countdown.wait)
        assert (result is None) == (end is Countdown.count_down)


def test_a_cancelled_job_ends_both_waits() -> None:
    job = Job(0, np.arange(3), 1, Countdown(3))
    job.ready = Countdown(1)
    job.cancel()
    assert job.cancelled and job.loaded.done and job.ready.done


# ------------------------------------------------------------------------------- from other threads


class PicturesWithPrefetch(Pictures):
    """Pictures that do something when the ids of a batch are drawn, in the consumer's thread."""

    def __init__(self, count: int, on_prefetch: Callable[[], None]) -> None:
        super().__init__(count)
        self.on_prefetch = on_prefetch

    def prefetch(self, ids: np.ndarray) -> None:
        self.on_prefetch()


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("call", [1, 2, 4])
@pytest.mark.parametrize("end", ["close", "load_state_dict"])
def test_closed_by_another_thread_while_jobs_are_started(call: int, end: str) -> None:
    """Jobs that the closing thread cannot have seen are not waited for."""
    calls: list[int] = []

    def prefetch() -> None:
        calls.append(1)
        if len(calls) == call:
            arguments = [beginning] if end == "load_state_dict" else []
            assert in_a_thread(lambda: getattr(loader, end)(*arguments)) == [None]

    loader = make_loader(PicturesWithPrefetch(24, prefetch))
    beginning = loader.state_dict()
    (result,) = in_a_thread(lambda: [len(batch) for batch in loader])
    assert isinstance(result, MillError)
    assert "this iteration is over" in str(result)
    assert not mill_threads()
    assert sum(len(batch) for batch in loader) == 24


@pytest.mark.usefixtures("pipeline")
def test_closed_by_another_thread_at_any_moment() -> None:
    """An epoch is complete, or it is an error: it never ends early without one."""
    loader = make_loader(400, prefetch=3)
    rng = np.random.default_rng(0)
    for _ in range(25):
        timer = threading.Timer(rng.uniform(0, 0.05), loader.close)
        timer.start()
        (result,) = in_a_thread(lambda: sum(len(batch) for batch in loader))
        timer.join()
        assert result == 400 or isinstance(result, MillError), result
    assert not mill_threads()
    assert sum(len(batch) for batch in loader) == 400


@pytest.mark.usefixtures("pipeline")
def test_left_early_and_restarted_at_once() -> None:
    loader = make_loader(60, RECIPE, prefetch=3, workers=3)
    for steps in (1, 2, 1, 5, 1, 1, 3, 15):
        for step, _ in enumerate(loader, 1):
            if step == steps:
                break
    assert not mill_threads()
    assert loader.epoch == 8


@pytest.mark.usefixtures("pipeline")
def test_stats_from_another_thread() -> None:
    loader = make_loader(200)
    done, problems = threading.Event(), []

    def ask() -> None:
        while not done.is_set():
            try:
                str(loader.stats())
            except Exception as error:
                problems.append(error)

    asker = threading.Thread(target=ask)
    asker.start()
    for _ in range(3):
        for _ in loader:
            pass
    done.set()
    asker.join(60)
    assert not problems


# --------------------------------------------------------------------------------- what goes wrong


def limit_memory(monkeypatch: pytest.MonkeyPatch, blocks: int) -> list[int]:
    """Make allocations after the first `blocks` fail; returns the list of requested sizes."""
    asked: list[int] = []
    original = memory.BlockPool.allocate

    def allocate(pool: memory.BlockPool, size: int) -> np.ndarray:
        asked.append(size)
        if len(asked) > blocks:
            raise memory.out_of_memory(size)
        return original(pool, size)

    monkeypatch.setattr(memory.BlockPool, "allocate", allocate)
    return asked


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_out_of_memory_is_a_mill_error(monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    loader = make_loader(48, RECIPE)
    loader.close()
    with monkeypatch.context() as patch:
        limit_memory(patch, blocks)
        with pytest.raises(MillError, match=r"no memory for another batch of .* GiB: use"):
            kept = list(loader)
            assert len(kept) < 12
    assert not mill_threads()
    assert sum(len(batch) for batch in loader) == 48


def test_an_error_while_later_ids_are_drawn_is_raised(pipeline: str) -> None:
    calls: list[int] = []

    def prefetch() -> None:
        calls.append(1)
        if len(calls) == 5:
            raise ConnectionError("the index has gone away")

    loader = make_loader(PicturesWithPrefetch(24, prefetch), prefetch=1)
    seen = 0
    with pytest.raises(ConnectionError):
        for batch in loader:
            seen += len(batch)
    in_the_making = 1 + 1 + 2 * (pipeline == "dali")  # ahead, waited for, in the decoder
    assert seen == 4 * (5 - in_the_making)
    assert not mill_threads()
    assert sum(len(batch) for batch in loader) == 24


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("stuck", [0, 9, 23])
def test_workers_stuck_in_a_read_do_not_block_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stuck: int
) -> None:
    """All of them: the consumer gets the error at once, the next iteration other workers."""
    from patchmill.loaders.pipelines import crew

    monkeypatch.setattr(crew, "JOIN_TIMEOUT_S", 0.05)
    gate, waiting = threading.Event(), threading.Semaphore(0)

    def read(index: int) -> None:
        if len(reads) >= stuck:
            waiting.release()
            gate.wait(60)
        reads.append(index)

    reads: list[int] = []
    source = Pictures(24, read)
    loader = make_loader(source, workers=2)

    def consume() -> int:
        return sum(len(batch) for batch in loader)

    results: list[Any] = []
    consumer = threading.Thread(target=lambda: results.extend(in_a_thread(consume)))
    consumer.start()
    assert waiting.acquire(timeout=60)
    loader.close()
    consumer.join(60)
    assert isinstance(results[0], MillError)
    assert "threads still wait for a sample" in caplog.text
    source.on_read = None
    assert consume() == 24
    gate.set()
    for thread in mill_threads():
        thread.join(60)


@pytest.mark.usefixtures("pipeline")
def test_an_error_in_a_later_batch_is_raised_in_its_turn() -> None:
    """Batches before it are complete."""
    from patchmill.loaders.order import permutation

    ids = permutation.Order(24, 0).ids(0, 0, 24).tolist()

    def read(index: int) -> None:
        if index == ids[13]:
            raise ZeroDivisionError
        time.sleep(0.002 * (index in ids[:4]))

    loader = make_loader(Pictures(24, read), prefetch=5)
    batches: Iterator[Any] = iter(loader)
    assert [next(batches).ids.tolist() for _ in range(3)] == [ids[0:4], ids[4:8], ids[8:12]]
    with pytest.raises(ZeroDivisionError):
        next(batches)
