"""Work in threads: results in order, errors in their turn, and an end that waits for nothing."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from patchmill.loaders.common import threads
from patchmill.loaders.common.threads import map_in_threads

IN_THE_MIDDLE = """
import threading
from patchmill.loaders.common import threads

def count():
    while True:
        yield 0

begun, gate = threading.Semaphore(0), threading.Event()
threads._JOIN_SECONDS = 0.01
mapped = threads.map_in_threads(lambda n: (begun.release(), n and gate.wait()), range(9), 2)
read = threads.read_ahead(count(), 2)
next(mapped), next(read)
for _ in range(3):
    begun.acquire()
{end}
"""


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(map_in_threads(lambda n: n * n, range(100), 3)) == [n * n for n in range(100)]
    assert list(map_in_threads(str, [], 3)) == []


def test_an_error_comes_in_its_turn_and_cancels_what_has_not_begun() -> None:
    done: list[int] = []

    def work(n: int) -> int:
        if n == 5:
            raise ZeroDivisionError
        done.append(n)
        return n

    results, got = map_in_threads(work, range(10_000), 1), []
    with pytest.raises(ZeroDivisionError):
        for result in results:
            got.append(result)
    assert got == [0, 1, 2, 3, 4]
    assert len(done) < 9_999


def test_closing_waits_for_work_in_progress_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A turn like that to compile a function, which nothing interrupts."""
    monkeypatch.setattr(threads, "_JOIN_SECONDS", 0.01)
    begun, gate = threading.Event(), threading.Event()

    def work(n: int) -> None:
        if n:
            begun.set()
            gate.wait(60)

    results = map_in_threads(work, range(9), 1)
    next(results)
    assert begun.wait(60)
    (worker,) = (thread for thread in threading.enumerate() if thread.name == "patchmill-map")
    results.close()
    assert worker.is_alive()
    gate.set()
    worker.join(60)
    assert not worker.is_alive()


@pytest.mark.parametrize(
    ("end", "status", "last"),
    [
        ("", 0, ""),
        ("raise KeyboardInterrupt", -2, "KeyboardInterrupt"),
        ("raise SystemExit(3)", 3, ""),
    ],
)
def test_a_program_may_end_while_threads_are_busy(end: str, status: int, last: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_MIDDLE.format(end=end)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status
    assert "Exception ignored" not in done.stderr
    assert done.stderr.rstrip().split("\n")[-1] == last
