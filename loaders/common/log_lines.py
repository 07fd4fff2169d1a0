"""Log lines on standard error, above a bar of progress where there is one."""

from __future__ import annotations

import logging
import sys


class StderrLines(logging.Handler):
    """Writes to what sys.stderr is at the time: a bar puts itself there and prints lines above it.

    logging's own handler keeps the stderr of its making, and would write across the bar.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)
