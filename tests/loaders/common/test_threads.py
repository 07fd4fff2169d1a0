"""Work in threads: results in order, errors in their turn, and an end that waits for nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from functools import partial

import pytest

from patchmill.loaders.common import threads
from patchmill.loaders.common.threads import map_ahead, map_in_threads

IN_THE_MIDDLE = """
import threading
from patchmill.loaders.common import threads

def count():
    while True:
        yield 0

begun, gate = threading.Semaphore(0), threading.Event()
threads._JOIN_SECONDS = 0.01
mapped = threads.{mapped}(lambda n: (begun.release(), n and gate.wait()), range(9), 2{ahead})
read = threads.read_ahead(count(), 2)
next(mapped), next(read)
for _ in range(3):
    begun.acquire()
{end}
"""


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(map_in_threads(lambda n: n * n, range(100), 3)) == [n * n for n in range(100)]
    assert list(map_in_threads(str, [], 3)) == []
    assert list(map_ahead(lambda n: n * n, range(100), 3, 5)) == [n * n for n in range(100)]
    assert list(map_ahead(str, [], 3, 5)) == []


def test_only_a_bounded_number_of_items_is_started_ahead() -> None:
    taken: list[int] = []
    items = (taken.append(n) or n for n in range(100))
    for n in map_ahead(lambda n: n, items, 2, 7):
        assert len(taken) <= n + 7 + 1
    assert len(taken) == 100


@pytest.mark.parametrize("mapped", [map_in_threads, partial(map_ahead, ahead=20)])
def test_an_error_is_raised_in_order_and_cancels_work_not_yet_started(
    mapped: Callable[..., Iterator[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_JOIN_SECONDS", 0.01)
    done, gate = list[int](), threading.Event()

    def work(n: int) -> int:
        if n == 5:
            raise ZeroDivisionError
        if n == 6:
            gate.wait(60)
        done.append(n)
        return n

    results, got = mapped(work, range(10_000), threads=1), []
    with pytest.raises(ZeroDivisionError):
        for result in results:
            got.append(result)
    gate.set()
    for worker in workers():
        worker.join(60)
    assert got == [0, 1, 2, 3, 4] and set(done) <= {*got, 6}


@pytest.mark.parametrize("mapped", [map_in_threads, partial(map_ahead, ahead=4)])
def test_closing_waits_for_work_in_progress_but_not_for_ever(
    mapped: Callable[..., Generator[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item like a compilation, which cannot be interrupted, or a read that hangs."""
    monkeypatch.setattr(threads, "_JOIN_SECONDS", 0.01)
    begun, gate = threading.Event(), threading.Event()

    def work(n: int) -> None:
        if n:
            begun.set()
            gate.wait(60)

    results = mapped(work, range(9), threads=1)
    next(results)
    assert begun.wait(60)
    (worker,) = workers()
    results.close()
    assert worker.is_alive()
    gate.set()
    worker.join(60)
    assert not worker.is_alive()


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "patchmill-map"]


@pytest.mark.parametrize(("mapped", "ahead"), [("map_in_threads", ""), ("map_ahead", ", 4")])
@pytest.mark.parametrize(
    ("end", "status", "last"),
    [
        ("", 0, ""),
        ("raise KeyboardInterrupt", -2, "KeyboardInterrupt"),
        ("raise SystemExit(3)", 3, ""),
    ],
)
def test_a_program_may_end_while_threads_are_busy(
    end: str, status: int, last: str, mapped: str, ahead: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_MIDDLE.format(end=end, mapped=mapped, ahead=ahead)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status
    assert "Exception ignored" not in done.stderr
    assert done.stderr.rstrip().split("\n")[-1] == last
