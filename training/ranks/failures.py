"""Failure propagation: an error on one rank soon ends the others, which report its message."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist

from patchmill.loaders.common.errors import MillError
from patchmill.training.ranks import distributed
from patchmill.training.ranks.reasons import reason

ERROR_KEY, SEEN_KEY = "failed", "heard"
POLL = 1.0  # seconds between polls of the error store
GRACE = 5.0  # seconds for a rank to end by itself after another has failed
DUMP_AFTER = 0.8  # share of the collective timeout without progress before stacks are dumped


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Propagate the first error of any rank: all ranks end and name the rank that failed first."""
    store, rank = distributed.error_store(), distributed.current().rank
    if store is None:
        yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(store, rank, done), daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        done.set()
        failed_rank, message = _first_error(store, rank, error)
        if failed_rank == rank:
            _wait_until_seen(store, rank)
            raise _explain(error) from error
        if message == _message(error):  # all ranks fail with the same error: one prints it
            sys.exit(1)
        raise MillError(f"rank {rank} ends because rank {failed_rank} failed: {message}") from None
    finally:
        done.set()
        # A process that exits while the watcher queries the store would abort.
        watcher.join(GRACE)


class StackDump:
    """Dumps the stacks of all threads if training stalls; removes the file if it never does.

    `reset` restarts the timer.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"stacks-rank{distributed.current().rank}.txt"
        self._file = open(self._path, "w")
        self.reset()

    def reset(self) -> None:
        seconds = DUMP_AFTER * distributed.COLLECTIVE_TIMEOUT.total_seconds()
        with contextlib.suppress(RuntimeError):  # no memory for its thread: the next reset retries
            faulthandler.dump_traceback_later(seconds, file=self._file)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        if not self._path.stat().st_size:
            self._path.unlink()


def _first_error(store: dist.Store, rank: int, error: Exception) -> tuple[int, str]:
    """Return rank and message of the first failure: this one if no other rank has failed."""
    try:
        entry = store.compare_set(ERROR_KEY, "", json.dumps([rank, _message(error)]))
        failed_rank, message = json.loads(entry)
        if failed_rank != rank:
            store.add(SEEN_KEY, 1)
        return failed_rank, message
    except RuntimeError:  # the store is gone with rank 0
        return rank, _message(error)


def _wait_until_seen(store: dist.Store, rank: int) -> None:
    """Keep rank 0, which serves the store, alive until the other ranks have read the error."""
    deadline = time.monotonic() + GRACE
    others = distributed.current().size - 1
    with contextlib.suppress(RuntimeError):
        while rank == 0 and store.add(SEEN_KEY, 0) < others and time.monotonic() < deadline:
            time.sleep(0.05)


def _watch(store: dist.Store, rank: int, done: threading.Event) -> None:
    """End this process if another rank has failed and this one hangs, e.g. in a collective."""
    while not done.wait(POLL):
        try:
            if not store.check([ERROR_KEY]):
                continue
            failed_rank, message = json.loads(store.get(ERROR_KEY))
        except RuntimeError:
            failed_rank, message = 0, "it is gone"
        if done.wait(GRACE):
            return
        print(
            f"error: rank {rank} ends because rank {failed_rank} failed: {message}", file=sys.stderr
        )
        sys.stderr.flush()
        with contextlib.suppress(RuntimeError):
            store.add(SEEN_KEY, 1)
        os._exit(1)


def _explain(error: Exception) -> Exception:
    """Turn a communication error into a MillError; return any other error unchanged."""
    text = str(error)
    is_communication = isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text
    if isinstance(error, MillError) or not is_communication:
        return error
    return MillError(
        f"rank {distributed.current().rank} lost the others ({reason(error)}): one was killed or "
        "hangs; see the end of its log, and stacks-rank*.txt in the run's folder"
    )


def _message(error: Exception) -> str:
    text = reason(error)
    return text if isinstance(error, MillError) else f"{type(error).__name__}: {text}"
