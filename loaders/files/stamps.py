"""Stamps: numbers that reveal whether content has changed, without reading it."""

from __future__ import annotations

import os
import time

UNSURE = 0  # the stamp of content that may still change without a change of its stamp

_FACTOR, _MASK = 0x9E3779B97F4A7C15, 2**64 - 1
_TICK_NS = 50_000_000  # a file that changes again within this may keep its modification time
_COARSE_NS = 2_000_000_000  # the same on file systems with a resolution of one or two seconds


def of_numbers(*numbers: int) -> int:
    """A 64-bit stamp, never UNSURE, that differs if any of the numbers does."""
    mixed = 0
    for number in numbers:
        mixed = ((mixed ^ (number & _MASK)) * _FACTOR) & _MASK
        mixed ^= mixed >> 31
    return mixed or 1


def of_file(status: os.stat_result) -> int:
    """Stamp of a file's content, by its size and modification time; UNSURE just after a change."""
    changed = status.st_mtime_ns
    within = _TICK_NS if changed % 1_000_000_000 else _COARSE_NS
    if abs(time.time_ns() - changed) < within:
        return UNSURE
    return of_numbers(status.st_size, changed)
