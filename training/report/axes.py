"""Axes with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

TICKS = 5  # approximate number of ticks
_ROUND = (1, 2, 5, 10)


@dataclass(frozen=True)
class Axis:
    low: float
    high: float
    ticks: list[tuple[float, str]]  # values and labels
    log: bool = False

    def position(self, value: float) -> float:
        """Return the position of a value: 0 at the low end, 1 at the high end."""
        low, high, value = (self._scaled(number) for number in (self.low, self.high, value))
        return (value - low) / (high - low)

    def _scaled(self, value: float) -> float:
        return math.log2(value) if self.log else value


def linear(
    values: Sequence[float], *, zero: bool = False, percent: bool = False, tight: bool = False
) -> Axis:
    """Build a linear axis around all values that starts and ends at ticks.

    With `zero` it includes 0; with `tight` it ends at the extreme values instead of ticks.
    """
    low, high = min(values), max(values)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # all values are about equal
        margin = abs(high) / 2 or 1.0
        low, high = (low if zero or tight else low - margin), high + margin
    step = _step(high - low)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = [number * step for number in range(first, last + 1)]
    if tight:
        marks = [mark for mark in marks if low - 1e-9 * step <= mark <= high + 1e-9 * step]
    else:
        low, high = marks[0], marks[-1]
    return Axis(low, high, [(mark, _label(mark, step, percent)) for mark in marks])


def doubling(values: Sequence[float]) -> Axis:
    """Build a log2 axis with the values themselves as ticks."""
    marks = sorted(set(values))
    low, high = marks[0], marks[-1]
    return Axis(
        low, high if high > low else 2 * low, [(mark, f"{mark:,g}") for mark in marks], log=True
    )


def _step(span: float) -> float:
    """Return the tick spacing: 1, 2 or 5 times a power of ten, for about TICKS ticks in `span`."""
    rough = span / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return power * min(_ROUND, key=lambda factor: abs(math.log(factor * power / rough)))


def _label(value: float, step: float, percent: bool) -> str:
    if percent:
        value, step = 100 * value, 100 * step
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(value) < step / 2:
        text = "0"
    elif decimals > 4 or abs(value) >= 1e7:
        text = f"{value:.3g}"
    else:
        text = f"{value:,.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}", 1) + ("%" if percent else "")
