"""One rank's failure ends the others soon, and they say whose it was."""

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

NOTE = "failed"
LOOK = 1.0  # seconds between looks at what others wrote
GRACE = 5.0  # seconds in which a rank can end by itself when another has failed
STUCK = 0.8  # of the time after which ranks give each other up, stacks are written down


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What fails in here is told to the other ranks; what failed first elsewhere, raised here."""
    store, rank = distributed.notes(), distributed.current().rank
    if store is None:
        yield
        return
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(store, rank, over), daemon=True)
    watch.start()
    try:
        yield
    except Exception as error:
        over.set()
        first, text = _first(store, rank, error)
        if first == rank:
            _let_hear(store, rank)
            raise _lost(error) from error
        if text == _text(error):  # the same complaint: once is enough
            sys.exit(1)
        raise MillError(f"rank {rank} ends because rank {first} failed: {text}") from None
    finally:
        over.set()
        # In the midst of a question to the store, it would abort a process that ends meanwhile.
        watch.join(GRACE)


class Stacks:
    """Writes down where every thread is when nothing has moved for long; removed if never."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"stacks-rank{distributed.current().rank}.txt"
        self._file = open(self._path, "w")
        self.moving()

    def moving(self) -> None:
        seconds = STUCK * distributed.HANG.total_seconds()
        faulthandler.dump_traceback_later(seconds, file=self._file)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        if not self._path.stat().st_size:
            self._path.unlink()


def _first(store: dist.Store, rank: int, error: Exception) -> tuple[int, str]:
    """Which rank failed first, and of what."""
    try:
        note = store.compare_set(NOTE, "", json.dumps([rank, _text(error)]))
        first, text = json.loads(note)
        if first != rank:
            store.add("heard", 1)
        return first, text
    except RuntimeError:  # the store went with rank 0
        return rank, _text(error)


def _let_hear(store: dist.Store, rank: int) -> None:
    """Rank 0 keeps the notes: it stays until they are read."""
    ends = time.monotonic() + GRACE
    others = distributed.current().size - 1
    with contextlib.suppress(RuntimeError):
        while rank == 0 and store.add("heard", 0) < others and time.monotonic() < ends:
            time.sleep(0.05)


def _watch(store: dist.Store, rank: int, over: threading.Event) -> None:
    """Ends a process that waits, perhaps for long, for ranks that have failed."""
    while not over.wait(LOOK):
        try:
            if not store.check([NOTE]):
                continue
            first, text = json.loads(store.get(NOTE))
        except RuntimeError:
            first, text = 0, "it is gone"
        if over.wait(GRACE):
            return
        print(f"error: rank {rank} ends because rank {first} failed: {text}", file=sys.stderr)
        sys.stderr.flush()
        with contextlib.suppress(RuntimeError):
            store.add("heard", 1)
        os._exit(1)


def _lost(error: Exception) -> Exception:
    """An error of communication, as a sentence; any other as it is."""
    text = str(error)
    talk = isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text
    if isinstance(error, MillError) or not talk:
        return error
    return MillError(
        f"rank {distributed.current().rank} lost the others ({_text(error)}): one was killed or "
        "hangs; look at the end of its log, and for stacks-rank*.txt in the run's folder"
    )


def _text(error: Exception) -> str:
    lines = str(error).splitlines()
    text = lines[0] if lines else ""
    return text if isinstance(error, MillError) else f"{type(error).__name__}: {text}"
