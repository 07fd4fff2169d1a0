"""Small files that are never half there, and the sentence for what cannot be written."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from patchmill.loaders.errors import MillError
from patchmill.loaders.preparing.tally import Bad


def write_whole(path: Path, text: str, rank: int) -> None:
    """Written under a name of this rank's, brought to the disk and renamed; raises OSError."""
    half = path.with_name(f".{path.name}.{rank}.part")
    try:
        with open(half, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, path)
    finally:
        with contextlib.suppress(OSError):
            half.unlink()


def write_ledger(path: Path, bad: Iterable[Bad], rank: int) -> None:
    write_whole(path, "".join(json.dumps(entry._asdict()) + "\n" for entry in bad), rank)


def hold(file: int, path: Path) -> None:
    """Lock an open file, which says who writes an output; the lock goes with its process."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MillError(
            f"another process is writing this output now (it holds {path}): wait for it, or end it"
        ) from None
    except OSError:  # where file locks do not work, as on some network disks, nobody is held up
        return


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Where an OSError can only be the output's."""
    try:
        yield
    except OSError as error:
        raise MillError(
            f"cannot write {out}: {error.strerror or error}; make room or mend that, then run the "
            "same command again: it continues where it stopped"
        ) from None
