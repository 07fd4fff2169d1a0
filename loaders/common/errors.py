"""MillError, for mistakes a user can fix: one sentence on what is wrong, where, what to do."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn


class MillError(Exception):
    """A mistake in the input, not in the program; commands print it without a traceback."""


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run a command line's `main`; a MillError or Ctrl-C ends it with one line on stderr.

    So does, without a word, output that nobody reads any more, as behind `| head`.
    """
    try:
        main()
        sys.stdout.flush()
    except MillError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise  # another pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        sys.exit(1)
    sys.exit(0)


def _stdout_is_closed() -> bool:
    """Check if the reader of stdout has gone."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
