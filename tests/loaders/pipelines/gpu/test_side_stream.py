"""The side stream on a CPU, where queued work is done at once."""

from __future__ import annotations

import threading

import pytest
import torch

from patchmill.loaders.pipelines.gpu.side_stream import SideStream
from patchmill.loaders.stats import Counters


def test_on_the_cpu_work_is_done_when_it_is_queued() -> None:
    counters = Counters(("upload", "render"))
    side = SideStream(torch.device("cpu"), counters)
    assert side.stream is None
    for items in (3, 4):
        with side.queue(items) as queued:
            queued.keep_alive(object())
            queued.end_stage("upload")
            queued.end_stage("render")
        assert queued.event is None
        assert queued.is_done()
        queued.wait()
    assert counters.items == {"upload": 7, "render": 7}
    assert all(nanoseconds > 0 for nanoseconds in counters.nanoseconds.values())
    side.synchronize()
    assert not side._queue


def test_failed_work_is_not_counted_and_the_next_is_queued() -> None:
    counters = Counters(("upload", "render"))
    side = SideStream(torch.device("cpu"), counters)
    with pytest.raises(ZeroDivisionError), side.queue(3) as queued:
        queued.end_stage("upload")
        raise ZeroDivisionError
    with side.queue(2) as queued:
        queued.end_stage("upload")
        queued.end_stage("render")
    assert counters.items == {"upload": 2, "render": 2}


def test_a_late_thread_and_its_successor_take_turns() -> None:
    counters = Counters(("render",))
    side, inside = SideStream(torch.device("cpu"), counters), []

    def work() -> None:
        for _ in range(200):
            with side.queue(1) as queued:
                inside.append(1)
                assert len(inside) == 1
                queued.end_stage("render")
                inside.pop()
            side.synchronize()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counters.items == {"render": 600}
