"""When a rank fails or hangs, the others end soon and report why; signals and status."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import time
from pathlib import Path

import helpers_ranks
import pytest

from patchmill.training.ranks import failures, signals
from patchmill.training.runtime import run_folder

BEGIN = """
import datetime, time
failures.GRACE, failures.POLL = 1.0, 0.2
"""


def test_all_ranks_report_the_first_error(tmp_path: Path):
    """Rank 1 fails while rank 0 is busy elsewhere, and rank 2 waits for both."""
    ended = helpers_ranks.run(
        BEGIN
        + """
def main():
    world = distributed.connect("cpu")
    with failures.shared():
        distributed.barrier()
        if world.rank == 1:
            raise MillError("the sky fell on rank 1")
        if world.rank == 0:
            time.sleep(100)
        distributed.any_rank(False)
run_command(main)
""",
        tmp_path,
        size=3,
        timeout=60,
    )
    assert [it.code for it in ended] == [1, 1, 1]
    assert ended[1].err.strip().endswith("error: the sky fell on rank 1")
    for rank in (0, 2):
        said = f"error: rank {rank} ends because rank 1 failed: the sky fell on rank 1"
        assert ended[rank].err.strip().endswith(said)


def test_the_same_error_on_all_ranks_is_printed_once(tmp_path: Path):
    ended = helpers_ranks.run(
        BEGIN
        + """
def main():
    distributed.connect("cpu")
    with failures.shared():
        distributed.barrier()
        raise MillError("a slip of the user's")
run_command(main)
""",
        tmp_path,
        timeout=60,
    )
    assert [it.code for it in ended] == [1, 1]
    assert sum(it.err.count("a slip of the user's") for it in ended) == 1


def test_a_hanging_rank_times_out_and_dumps_its_stacks(tmp_path: Path):
    ended = helpers_ranks.run(
        BEGIN
        + f"""
from pathlib import Path
distributed.COLLECTIVE_TIMEOUT = datetime.timedelta(seconds=4)
def lost_in_thought():
    time.sleep(100)
def main():
    world = distributed.connect("cpu")
    with failures.shared():
        stacks = failures.StackDump(Path({str(tmp_path)!r}))
        if world.rank == 1:
            lost_in_thought()
        distributed.barrier()
run_command(main)
""",
        tmp_path,
        timeout=60,
    )
    assert [it.code for it in ended] == [1, 1]
    assert "error: rank 0 lost the others" in ended[0].err and "stacks-rank*.txt" in ended[0].err
    assert "rank 1 ends because rank 0 failed" in ended[1].err
    assert "lost_in_thought" in (tmp_path / "stacks-rank1.txt").read_text()
    assert "barrier" in (tmp_path / "stacks-rank0.txt").read_text()


def test_training_continues_without_the_thread_that_dumps_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_memory(seconds: float, file: object) -> None:
        raise RuntimeError("unable to start watchdog thread")

    monkeypatch.setattr(faulthandler, "dump_traceback_later", no_memory)
    stacks = failures.StackDump(tmp_path)
    stacks.reset()
    stacks.close()
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------ signals


def test_the_first_signal_is_kept_and_handlers_are_restored():
    before = signal.getsignal(signal.SIGUSR1)
    with signals.Signals() as received:
        assert not received.first
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):  # in less than a second
            os.kill(os.getpid(), number)
        assert received.first == signal.SIGUSR1
        assert signals.Vote().exchange(received.first, 7) == (signal.SIGUSR1, 7)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_the_same_signal_again_ends_the_process(tmp_path: Path):
    (ended,) = helpers_ranks.run(
        """
        import time
        signals.SAME = 0.0
        with signals.Signals() as received:
            os.kill(os.getpid(), signal.SIGTERM)
            print(int(received.first), flush=True)
            time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            print("never")
        """,
        tmp_path,
        size=1,
    )
    assert ended.code == -signal.SIGTERM
    assert ended.out == f"{int(signal.SIGTERM)}\n"


# ------------------------------------------------------------------------------------------- status


def test_heartbeats_are_rate_limited_and_the_end_is_written_at_once(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    status = run_folder.Status(tmp_path, step=0, steps=10)
    status.beat(step=1)
    assert run_folder.read_status(tmp_path)["step"] == 0
    now[0] += 2 * run_folder.BEAT
    status.beat(step=2)
    found = run_folder.read_status(tmp_path)
    assert (found["state"], found["step"], found["time"]) == ("running", 2, now[0])
    assert found["pid"] == os.getpid() and found["restarts"] == 0
    status.beat(step=3)
    status.end("stopped")
    assert (
        run_folder.read_status(tmp_path)["state"],
        run_folder.read_status(tmp_path)["step"],
    ) == ("stopped", 3)
    run_folder.Status(tmp_path)
    assert run_folder.read_status(tmp_path)["restarts"] == 1


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_status_that_cannot_be_read_is_none(text, tmp_path):
    assert run_folder.read_status(tmp_path) == {}
    (tmp_path / "status.json").write_text(text)
    assert run_folder.read_status(tmp_path) == {}
    run_folder.Status(tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["restarts"] == 0
