"""MillError, for mistakes a user can fix: one sentence on what is wrong, where, what to do."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn

from patchmill.loaders.common.printed import printable


class MillError(Exception):
    """A mistake in the input, not in the program; commands print it without a traceback."""


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run a command line's `main`; a MillError or Ctrl-C ends it with one line on stderr.

    So does, without a word, output that nobody reads any more, as behind `| head`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that its encoding does not have
        sys.stdout.reconfigure(errors="backslashreplace")
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
    return 0


def _stdout_is_closed() -> bool:
    """Check if the reader of stdout has gone."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
