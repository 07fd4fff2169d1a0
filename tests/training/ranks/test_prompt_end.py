"""Signals end a run promptly while Python is inside a call that cannot be interrupted."""

from __future__ import annotations

import signal
from pathlib import Path

import helpers_ranks
import pytest

from patchmill.training.runtime.run_folder import STOPPED

LONG_CALL = """
import contextlib, hashlib, threading, time
from patchmill.training.ranks.prompt_end import prompt_end

def send(number, times):
    for _ in range(times):
        time.sleep(0.5)
        os.kill(os.getpid(), number)

def stay(number, times=1):
    threading.Thread(target=send, args=(number, times), daemon=True).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)  # half an hour, without signals
    print("never")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_with_nothing_to_save_ends(number: signal.Signals, tmp_path: Path):
    (ended,) = helpers_ranks.run(
        LONG_CALL
        + f"""
with prompt_end(), signals.Signals() as received:
    received.abandon = lambda: print("stopped", flush=True)
    with received.may_stop():
        stay({int(number)})
""",
        tmp_path,
        size=1,
    )
    assert (ended.code, ended.out) == (STOPPED, "stopped\n")
    assert ended.err == (
        f"{number.name} received: exiting, as there is nothing to save; run the same "
        "command to resume\n"
    )


def test_a_checkpoint_is_waited_for_and_a_second_ctrl_c_ends_at_once(tmp_path: Path):
    (ended,) = helpers_ranks.run(
        LONG_CALL + f"with prompt_end(), signals.Signals(): stay({int(signal.SIGINT)}, times=2)",
        tmp_path,
        size=1,
    )
    assert (ended.code, ended.out) == (128 + signal.SIGINT, "")
    assert ended.err == (
        "SIGINT received: checkpointing after this step, then exiting; send again to exit now\n"
    )


def test_a_checkpoint_on_its_way_to_the_disk_is_waited_for(tmp_path: Path):
    """Also where whatever follows it hangs."""
    (ended,) = helpers_ranks.run(
        LONG_CALL
        + f"""
with prompt_end(), signals.Signals() as received:
    written = threading.Event()
    received.writing = lambda: not written.is_set()
    threading.Timer(2.0, lambda: (print("written", flush=True), written.set())).start()
    with received.may_stop():
        stay({int(signal.SIGINT)})
""",
        tmp_path,
        size=1,
    )
    assert (ended.code, ended.out) == (STOPPED, "written\n")
    assert "exiting when the checkpoint is written; send again to exit now" in ended.err


def test_without_signals_nothing_changes(tmp_path: Path):
    (ended,) = helpers_ranks.run(
        LONG_CALL
        + """
with prompt_end(), signals.Signals() as received, received.may_stop():
    pass
print(threading.active_count(), signal.set_wakeup_fd(-1))
""",
        tmp_path,
        size=1,
    )
    assert (ended.code, ended.out, ended.err) == (0, "1 -1\n", "")
