"""Exponentials of a block of logits on the CPU, in one pass over it while it is in the cache.

torch takes three passes and, for the exponential alone, twice the time of this. Logits come as
products that are to be multiplied by a scale. IEEE arithmetic: NaN stays NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from patchmill.kernels.common.jit import jit_ieee

LANES = 32
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
LOWEST = np.float32(-87.3)  # whose exponential is the least normal number
LOG2_E = np.float32(1.44269504)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
C2, C3, C4, C5, C6, C7 = map(
    np.float32, (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3,
                 1.3981999507e-3, 1.9875691500e-4),
)  # fmt: skip
BIAS, MANTISSA, LEAST = np.int32(127), np.int32(23), np.float32(-127)


@jit_ieee
def soften(products: Any, scale: Any, peak: Any, total: Any) -> None:
    """Each becomes its logit's exponential, less its row's `peak`; `total` is the row's sum."""
    lanes = np.empty(LANES, np.float32)
    for i in range(len(products)):
        row, height = products[i], peak[i]
        for k in range(LANES):
            lanes[k] = ZERO
        whole = len(row) // LANES * LANES
        for left in range(0, whole, LANES):
            some = row[left : left + LANES]
            for k in range(LANES):
                some[k] = exponential(some[k] * scale - height)
                lanes[k] += some[k]
        for k in range(len(row) - whole):
            row[whole + k] = exponential(row[whole + k] * scale - height)
            lanes[k] += row[whole + k]
        total[i] = ZERO
        for k in range(LANES):
            total[i] += lanes[k]


@jit_ieee
def weigh(products: Any, scale: Any, columns: Any, rows: Any) -> None:
    """Each becomes its logit's exponential, less its column's number, and less its row's if any."""
    for i in range(len(products)):
        row = products[i]
        if len(rows) == 0:
            for j in range(len(row)):
                row[j] = exponential(row[j] * scale - columns[j])
        else:
            other = rows[i]
            for j in range(len(row)):
                logit = row[j] * scale
                row[j] = exponential(logit - columns[j]) + exponential(logit - other)


@jit_ieee
def exponential(x):  # type: ignore[no-untyped-def]
    """To 2 units in the last place, by Cephes' expf; 0 where it would be less than 1e-38."""
    n = np.floor(x * LOG2_E + HALF)
    n = n if n > LEAST else LEAST  # also where x is NaN, which no whole number stands for
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = ((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2
    power = np.int32((np.int32(n) + BIAS) << MANTISSA).view(np.float32)
    value = (p * (r * r) + r + ONE) * power
    return ZERO if x < LOWEST else value
