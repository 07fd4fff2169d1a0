"""Log lines on standard error, above a bar of progress where there is one."""

from __future__ import annotations

import copy
import logging
import os
import sys

from patchmill.loaders.common.printed import printable


class StderrLines(logging.Handler):
    """Writes to what sys.stderr is at the time: a bar puts itself there and prints lines above it.

    logging's own handler keeps the stderr of its making, and would write across the bar.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(_with_shown_arguments(record))
            print(printable(text, lines=True), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def _with_shown_arguments(record: logging.LogRecord) -> logging.LogRecord:
    """The record with names and errors on one line each; line ends of the message itself stay."""
    if not isinstance(record.args, tuple):
        return record
    shown = copy.copy(record)
    shown.args = tuple(
        printable(value) if isinstance(value, str | os.PathLike | BaseException) else value
        for value in record.args
    )
    return shown
