"""Threads end and memory comes back, whichever way an iteration ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pipelines import RECIPE, Pictures, batch_pool, make_loader, mill_threads

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines.worker import Worker

pytestmark = pytest.mark.usefixtures("pipeline")

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


# ------------------------------------------------------------------------------------------ threads


def test_there_are_threads_only_while_iterating(pipeline: str) -> None:
    loader = make_loader(workers=3)
    assert not mill_threads()
    for _ in loader:
        assert len(mill_threads()) == 3 + (pipeline == "dali")
    assert not mill_threads()


def test_break_close_and_deletion_end_the_threads() -> None:
    loader = make_loader()
    for _ in loader:
        break
    assert not mill_threads()
    iterator = iter(loader)
    next(iterator)
    iterator.close()
    assert not mill_threads()
    iterator = iter(loader)
    next(iterator)
    del iterator
    assert not mill_threads()
    iterator = iter(loader)
    next(iterator)
    loader.close()
    assert not mill_threads()


def test_an_exception_in_the_training_loop_ends_the_threads() -> None:
    with pytest.raises(ZeroDivisionError):
        for batch in make_loader():
            len(batch) / 0
    assert not mill_threads()


def test_the_loader_may_be_deleted_while_it_is_iterated() -> None:
    loader = make_loader()
    count = 0
    for batch in loader:
        loader = None
        count += len(batch)
    assert count == 24


def test_the_garbage_collector_may_end_an_iteration_from_one_of_its_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An iterator in a reference cycle may be collected in any thread."""
    armed, collected = threading.Event(), threading.Event()

    def render(*arguments: Any) -> None:
        if armed.is_set():
            gc.collect()
            collected.set()
        time.sleep(0.001)
        original(*arguments)

    original = Worker.render
    monkeypatch.setattr(Worker, "render", render)
    gc.disable()
    try:
        iterator = iter(make_loader(2000, batch_size=200))
        next(iterator)
        cycle: list[Any] = [iterator]
        cycle.append(cycle)
        del iterator, cycle
        armed.set()
        assert collected.wait(60)
    finally:
        gc.enable()
    for thread in mill_threads():
        thread.join(60)


def test_threads_that_cannot_be_started_are_a_mill_error(monkeypatch: pytest.MonkeyPatch) -> None:
    loader, start = make_loader(workers=3), threading.Thread.start

    def start_two(thread: threading.Thread) -> None:
        if thread.name == "patchmill-2":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_two)
        with pytest.raises(MillError, match=r"cannot start \d threads: "):
            next(iter(loader))
    assert not mill_threads()
    assert loader.epoch == 0
    assert sum(len(batch) for batch in loader) == 24
    assert loader.epoch == 1


# -------------------------------------------------------------------------- one iteration at a time


def test_a_new_iteration_ends_the_one_before() -> None:
    loader, other = make_loader(), make_loader()
    first, second = iter(loader), iter(loader)
    epochs = [[batch.ids.tolist() for batch in other] for _ in range(2)]
    assert next(first).ids.tolist() == epochs[0][0]
    assert next(second).ids.tolist() == epochs[1][0]
    with pytest.raises(MillError, match="started another iteration"):
        next(first)
    assert [batch.ids.tolist() for batch in second] == epochs[1][1:]
    assert loader.epoch == 2


@pytest.mark.parametrize("end", ["close", "load_state_dict"])
def test_closing_or_taking_a_state_ends_the_iteration(end: str) -> None:
    loader = make_loader()
    arguments = [loader.state_dict()] if end == "load_state_dict" else []
    iterator = iter(loader)
    next(iterator)
    getattr(loader, end)(*arguments)
    assert not mill_threads()
    with pytest.raises(MillError, match="this iteration is over"):
        next(iterator)
    assert sum(len(batch) for batch in loader) == 24
    assert loader.epoch == (1 if arguments else 2)


def test_close_ends_an_iteration_that_another_thread_waits_on() -> None:
    gate, waiting = threading.Event(), threading.Event()

    def pause(index: int) -> None:
        waiting.set()
        gate.wait()

    loader, raised = make_loader(Pictures(24, pause)), []

    def consume() -> None:
        try:
            next(iter(loader))
        except MillError as error:
            raised.append(error)

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert waiting.wait(60)
    closer = threading.Thread(target=loader.close)
    closer.start()
    consumer.join(60)  # while its samples still cannot be read
    gate.set()
    closer.join(60)
    assert len(raised) == 1


# ------------------------------------------------------------------------------------------- memory


def pointers(batch: Any) -> set[int]:
    return {views.untyped_storage().data_ptr() for views in batch.views.values()}


def test_batch_memory_is_reused_and_bounded() -> None:
    loader, seen, batches = make_loader(96, RECIPE, prefetch=2), set(), 0
    for _ in range(3):
        for batch in loader:
            seen |= pointers(batch)
            batches += 1
    assert batches == 72
    assert len(seen) <= 2 + 2 + 2  # made ahead, in hand, and one for each thread that is late


@pytest.mark.parametrize("keep", ["batch", "views", "crop", "pixel", "flat", "numpy"])
def test_kept_views_are_never_overwritten(keep: str) -> None:
    loader, kept = make_loader(48, RECIPE), []
    for batch in loader:
        thing = {
            "batch": lambda batch=batch: batch.views["local"],
            "views": lambda batch=batch: batch.views["global"],
            "crop": lambda batch=batch: batch.crops()[3],
            "pixel": lambda batch=batch: batch.crops()[1][2, 1, 4:6],
            "flat": lambda batch=batch: batch.flat("local"),
            "numpy": lambda batch=batch: batch.views["global"][1].numpy(),
        }[keep]()
        copy = torch.as_tensor(thing).clone()
        kept.append((batch if keep == "batch" else thing, thing, copy))
        del batch
    for _ in range(2):
        for _ in loader:
            pass
    assert all(torch.equal(torch.as_tensor(thing), copy) for _, thing, copy in kept)


def test_a_batch_outlives_its_loader() -> None:
    loader = make_loader(recipe=RECIPE)
    batch = next(iter(loader))
    copy = batch.views["global"].clone()
    loader.close()
    del loader
    gc.collect()
    assert torch.equal(batch.views["global"], copy)


def test_a_loader_is_freed_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        loader = make_loader(recipe=RECIPE)
        for _ in loader:
            break
        for _ in loader:
            pass
        gone = weakref.ref(loader), weakref.ref(loader.pipeline), weakref.ref(batch_pool(loader))
        del loader
        assert [reference() for reference in gone] == [None] * 3
    finally:
        gc.enable()


def test_a_batch_larger_than_the_data_takes_no_more_memory_than_the_data() -> None:
    (batch,) = make_loader(10, batch_size=10**9, drop_last=False)
    assert len(batch) == 10
    assert batch.views["view"].untyped_storage().nbytes() == 10 * 3 * 8 * 8 * 4


# ----------------------------------------------------------------------------- a process of its own

PREAMBLE = """
import signal, sys, threading, time
from helpers_pipelines import Pictures, make_loader
from patchmill.loaders.pipelines import crew

crew.JOIN_TIMEOUT_S = 5.0  # on a busy machine

def threads():
    return sum(thread.name.startswith("patchmill") for thread in threading.enumerate())
"""


def start(script: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT), str(HERE)])
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", PREAMBLE + script],
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status and outputs; a process that hangs fails the test."""
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # faulthandler shows where it hangs
        pytest.fail("the process hangs:\n" + "\n".join(process.communicate()))
    return process.returncode, out, err


def interrupt(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    assert process.stdout.readline() == "ready\n", process.communicate()
    process.send_signal(signal.SIGINT)


IN_THE_LOOP = """
try:
    for batch in make_loader(2000):
        print("ready", flush=True)
        time.sleep(100)
except KeyboardInterrupt:
    print("threads", threads())
"""
WAITING = """
reads = []

def slow(index):
    reads.append(index)
    if len(reads) == 100:  # when the other thread has long begun to wait
        print("ready", flush=True)
    time.sleep(0.01)

try:
    for batch in make_loader(Pictures(3000, slow), batch_size=3000):
        pass
except KeyboardInterrupt:
    assert len(reads) < 3000
    print("threads", threads())
"""
UNCAUGHT = """
loader = make_loader(2000)
iterator = iter(loader)
next(iterator)
print("ready", flush=True)
time.sleep(100)
"""


def each_by_one(first: str, second: str) -> pytest.MarkDecorator:
    """A script for each pipeline: a process takes seconds to start. Slow tests are the others."""
    usual = [("threads", first), ("dali", second)]
    slow = [
        pytest.param(*it, marks=pytest.mark.slow) for it in (("threads", second), ("dali", first))
    ]
    return pytest.mark.parametrize(("pipeline", "script"), [*usual, *slow], indirect=["pipeline"])


@each_by_one(WAITING, IN_THE_LOOP)
def test_ctrl_c_ends_the_threads(script: str) -> None:
    for _ in range(3):
        process = start(script)
        interrupt(process)
        status, out, err = ends(process)
        # Python drops an interrupt that comes while a weak reference's callback runs.
        if "Exception ignored in: <function WeakSet" not in err:
            break
    assert (status, out) == (0, "threads 0\n"), err


def test_uncaught_ctrl_c_ends_the_process() -> None:
    process = start(UNCAUGHT)
    interrupt(process)
    status, _, err = ends(process)
    assert status == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in err


LEFT_OPEN = """
loader = make_loader(2000)
iterator = iter(loader)
next(iterator)
kept = [iterator, loader]
kept.append(kept)
print("done")
"""
BUSY_AT_THE_END = """
loader = make_loader(Pictures(2000, lambda index: time.sleep(0.001)), batch_size=500)
iterator = iter(loader)
next(iterator)
print("done")
"""


@each_by_one(BUSY_AT_THE_END, LEFT_OPEN)
def test_a_program_may_exit_in_the_middle_of_an_epoch(script: str) -> None:
    status, out, err = ends(start(script))
    assert (status, out, err) == (0, "done\n", "")


FORKED = """
import os
from patchmill.loaders.common.errors import MillError

loader = make_loader(64)
iterator = iter(loader)
first = next(iterator).ids.tolist()
if child := os.fork():
    _, status = os.waitpid(child, 0)
    print("child", os.waitstatus_to_exitcode(status), flush=True)
    print(sum(len(batch) for batch in iterator))
else:
    try:
        next(iterator)
    except MillError as error:
        print(error, flush=True)
    try:
        print(sum(len(batch) for batch in loader), flush=True)
    except MillError as error:
        print(error, flush=True)
    iterator = loader = None
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_gets_an_error_and_can_start_its_own_iteration(pipeline: str) -> None:
    """Except with DALI, which raises an error."""
    status, out, err = ends(start(FORKED))
    message, own, child, rest = out.splitlines()
    assert "forked" in message
    if pipeline == "dali":
        assert own.startswith("DALI does not work in a process that was forked")
    else:
        assert own == "64"
    assert (status, child, rest) == (0, "child 0", "60"), err
