"""Log lines on standard error, printed above a progress bar if there is one."""

from __future__ import annotations

import copy
import logging
import os
import sys

from patchmill.loaders.common.printed import printable


class StderrLines(logging.Handler):
    """Writes to the current sys.stderr, which a progress bar replaces to print lines above itself.

    logging's own handler keeps the stderr it was created with, and would write across the bar.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(_with_shown_arguments(record))
            print(printable(text, lines=True), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def _with_shown_arguments(record: logging.LogRecord) -> logging.LogRecord:
    """The record with names and errors on one line each; line breaks of the message itself stay."""
    if not isinstance(record.args, tuple):
        return record
    shown = copy.copy(record)
    shown.args = tuple(
        printable(value) if isinstance(value, str | os.PathLike | BaseException) else value
        for value in record.args
    )
    return shown
