"""LDL^T solver for symmetric positive definite systems (Numba needs SciPy for LAPACK's)."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit

_MIN_PIVOT = 1e-14  # relative to the largest diagonal entry; smaller pivots are raised to this


@jit
def ldlt_factor(matrix):
    """Factorise the lower triangle of float64 [n, n] in place: L below the diagonal, D on it.

    n^3 / 6 multiply-adds, row by row.
    """
    count = len(matrix)
    column = np.empty(count, np.float64)
    least = _MIN_PIVOT * np.diag(matrix).max()
    for k in range(count):
        pivot = max(matrix[k, k], least)
        matrix[k, k] = pivot
        for i in range(k + 1, count):
            column[i] = matrix[i, k]
        for i in range(k + 1, count):
            ratio = column[i] / pivot
            if ratio != 0:
                subtract_scaled(matrix[i, k + 1 : i + 1], ratio, column[k + 1 : i + 1])
                matrix[i, k] = ratio
    return matrix


@jit
def subtract_scaled(row, factor, column):
    for j in range(len(row)):
        row[j] -= factor * column[j]


@jit
def ldlt_solve(factored, right):
    """Solve for one right-hand side, given the result of `ldlt_factor`."""
    count = len(right)
    x = right.astype(np.float64)
    for i in range(count):
        x[i] -= (factored[i, :i] * x[:i]).sum()
    for i in range(count):
        x[i] /= factored[i, i]
    for i in range(count - 1, -1, -1):
        subtract_scaled(x[:i], x[i], factored[i, :i])
    return x
