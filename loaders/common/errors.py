"""MillError, for mistakes a user can fix: one sentence on what is wrong, where, and what to do."""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from patchmill.loaders.common.printed import printable
from patchmill.loaders.common.shortage import OUT_OF_FILES, shortage

_LESS = "use smaller batches or fewer workers, or close other programs"


class MillError(Exception):
    """A mistake in the input rather than the program; commands print it without a traceback."""


def memory_error(error: BaseException, use: str, remedy: str) -> MillError | None:
    """Error message for a shortage of memory, threads or open files; None for any other error."""
    message = shortage(error)
    if message is None:
        return None
    if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
        problem = f"no more files can be opened for {use} ({message})"
        return MillError(f"{problem}: raise the limit, ulimit -n, or close files of this program")
    lacking = "thread" if "thread" in message or "temporarily" in message else "memory"
    return MillError(f"there is no {lacking} for {use} ({message}): {remedy}")


@contextlib.contextmanager
def memory_errors(use: str, remedy: str) -> Iterator[None]:
    """Turn a shortage of memory or threads in the body, which is for `use`, into a MillError."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        lack = memory_error(error, use, remedy)
        if lack is None:
            raise
        raise lack from None


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run a command's `main`; a MillError or Ctrl-C ends it with one line on stderr.

    A closed output pipe, as with `| head`, ends it silently.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # for names that its encoding cannot represent
        sys.stdout.reconfigure(errors="backslashreplace")
    # Garbage collection of all that torch and Numba loaded would delay the exit by a second
    atexit.register(gc.freeze)
    status = _status(main)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        status = status or 1
    sys.exit(status)


def _status(main: Callable[[], None]) -> int | str:
    """Exit status of a command, or the message to end with."""
    try:
        main()
    except MillError as error:
        return printable(f"error: {error}", lines=True)
    except SystemExit as ended:
        code = ended.code or 0
        return printable(code, lines=True) if isinstance(code, str) else code
    except KeyboardInterrupt:
        return "interrupted"
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise  # another pipe
        return 1
    except (MemoryError, RuntimeError, OSError) as error:
        lack = memory_error(error, "this command", _LESS)
        if lack is None:
            raise
        return printable(f"error: {lack}", lines=True)
    return 0


def _stdout_is_closed() -> bool:
    """True if the reader of stdout has closed its end."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
