"""Validate the ranges that operations draw from."""

from __future__ import annotations

import math

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.operation import Operation


def check_range(
    made: Operation,
    name: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Raise a MillError unless the setting is two numbers in order, within these bounds."""
    low, high = getattr(made, name)
    if least <= low <= high <= most and low > above:
        return
    bounds = f"{least:g} <= low" if math.isfinite(least) else "low"
    bounds = f"{above:g} < low" if math.isfinite(above) else bounds
    end = f" <= {most:g}" if math.isfinite(most) else ""
    raise MillError(f"{made.kind}: {name} must satisfy {bounds} <= high{end}, not {(low, high)}")
