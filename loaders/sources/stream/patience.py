"""Timeout and retries of streams, from arguments or the environment; a way to stop waiting."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from patchmill.loaders.common.errors import MillError

TIMEOUT, RETRIES = "PATCHMILL_STREAM_TIMEOUT", "PATCHMILL_STREAM_RETRIES"

_FIRST_DELAY_S, _LONGEST_DELAY_S = 1.0, 60.0


@dataclass(frozen=True)
class Patience:
    """Limits of a stream: the timeout for a byte, and consecutive retries without a sample."""

    timeout_s: float = 30.0
    retries: int = 5

    def delay_s(self, failures: int, wait_s: float) -> float:
        """Delay before the next attempt; a server's Retry-After is respected up to a minute."""
        return min(max(_FIRST_DELAY_S * 2**failures, wait_s), _LONGEST_DELAY_S)


def choose(timeout_s: float | None = None, retries: int | None = None) -> Patience:
    """The arguments, or else the environment's values, or else the defaults."""
    timeout_s = _number("timeout_s", TIMEOUT, timeout_s, Patience.timeout_s)
    times = _number("retries", RETRIES, retries, Patience.retries)
    if not 0 < timeout_s < math.inf:
        raise MillError(f"a stream's timeout ({TIMEOUT}) must be above 0 s, not {timeout_s:g}")
    if not (0 <= times < math.inf and times == int(times)):
        raise MillError(f"a stream's retries ({RETRIES}) must be a whole number, not {times:g}")
    return Patience(timeout_s, int(times))


def _number(name: str, variable: str, argument: float | None, default: float) -> float:
    value = os.environ.get(variable) or default if argument is None else argument
    try:
        return float(value)
    except (TypeError, ValueError):
        raise MillError(f"a stream's {name} ({variable}) must be a number, not {value!r}") from None


class Halt:
    """Lets another thread interrupt a thread that waits for bytes or for the next attempt."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._end: Callable[[], object] = _nothing

    def now(self) -> None:
        self._event.set()
        self._run_end()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def sleep(self, seconds: float) -> None:
        self._event.wait(seconds)

    def end_by(self, end: Callable[[], object]) -> None:
        """Set the callback that ends the current wait: to close a connection or kill a command."""
        self._end = end
        if self:
            self._run_end()

    def _run_end(self) -> None:
        with contextlib.suppress(OSError):
            self._end()


def _nothing() -> None:
    pass
