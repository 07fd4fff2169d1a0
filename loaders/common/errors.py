"""MillError, for mistakes a user can fix: one sentence on what is wrong, where, what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class MillError(Exception):
    """A mistake in the input, not in the program; commands print it without a traceback."""


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run a command line's `main`; a MillError or Ctrl-C ends it with one line on stderr."""
    try:
        main()
    except MillError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    sys.exit(0)
