"""Exponentials of a block of logits on the CPU, in one pass while the block is in the cache.

torch takes three passes and, for the exponential alone, twice the time. Logits arrive as dot
products that are yet to be multiplied by a scale (1 / temperature). IEEE arithmetic: NaN stays NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from patchmill.kernels.common.jit import jit_ieee

LANES = 32
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
LOWEST = np.float32(-87.3)  # exp(LOWEST) is about the smallest normal float32
LOG2_E = np.float32(1.44269504)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
C2, C3, C4, C5, C6, C7 = map(
    np.float32, (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3,
                 1.3981999507e-3, 1.9875691500e-4),
)  # fmt: skip
BIAS, MANTISSA, MIN_EXPONENT = np.int32(127), np.int32(23), np.float32(-127)


@jit_ieee
def exp_rows(
    products: Any,  # [rows, columns] float32, overwritten
    scale: Any,  # float32
    row_max: Any,  # [rows] float32
    row_sum: Any,  # [rows] float32, written
) -> None:
    """products = exp(products * scale - row_max), and the sum of each row."""
    lanes = np.empty(LANES, np.float32)
    for i in range(len(products)):
        row, shift = products[i], row_max[i]
        for k in range(LANES):
            lanes[k] = ZERO
        vectorised = len(row) // LANES * LANES
        for left in range(0, vectorised, LANES):
            chunk = row[left : left + LANES]
            for k in range(LANES):
                chunk[k] = exponential(chunk[k] * scale - shift)
                lanes[k] += chunk[k]
        for k in range(len(row) - vectorised):
            row[vectorised + k] = exponential(row[vectorised + k] * scale - shift)
            lanes[k] += row[vectorised + k]
        row_sum[i] = ZERO
        for k in range(LANES):
            row_sum[i] += lanes[k]


@jit_ieee
def softmax_weights(
    products: Any,  # [rows, columns] float32, overwritten
    scale: Any,  # float32
    column_lse: Any,  # [columns] float32: log-sum-exp of the queries
    row_lse: Any,  # [rows] float32, or [0] if rows are not queries
) -> None:
    """products = exp(logit - column_lse), plus exp(logit - row_lse) if rows are queries too."""
    for i in range(len(products)):
        row = products[i]
        if len(row_lse) == 0:
            for j in range(len(row)):
                row[j] = exponential(row[j] * scale - column_lse[j])
        else:
            own_lse = row_lse[i]
            for j in range(len(row)):
                logit = row[j] * scale
                row[j] = exponential(logit - column_lse[j]) + exponential(logit - own_lse)


@jit_ieee
def exponential(x):  # type: ignore[no-untyped-def]
    """exp(x) to 2 units in the last place (Cephes' expf); 0 where it would be below 1e-38."""
    n = np.floor(x * LOG2_E + HALF)
    n = n if n > MIN_EXPONENT else MIN_EXPONENT  # also if x is NaN, which cannot become an integer
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = ((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2
    power = np.int32((np.int32(n) + BIAS) << MANTISSA).view(np.float32)
    value = (p * (r * r) + r + ONE) * power
    return ZERO if x < LOWEST else value
