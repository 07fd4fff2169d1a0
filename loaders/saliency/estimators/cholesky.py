"""Symmetric positive definite systems, without LAPACK (which Numba only has through SciPy)."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit

_LEAST = 1e-14  # a pivot no larger than this, beside the largest, is taken for this


@jit
def ldlt_factor(matrix):
    """LDL^T in place, of the lower triangle of float64 [n, n]: L below the diagonal, D on it.

    n^3 / 6 multiply-adds, in rows.
    """
    count = len(matrix)
    column = np.empty(count, np.float64)
    least = _LEAST * np.diag(matrix).max()
    for k in range(count):
        pivot = max(matrix[k, k], least)
        matrix[k, k] = pivot
        for i in range(k + 1, count):
            column[i] = matrix[i, k]
        for i in range(k + 1, count):
            share = column[i] / pivot
            if share != 0:
                subtract(matrix[i, k + 1 : i + 1], share, column[k + 1 : i + 1])
                matrix[i, k] = share
    return matrix


@jit
def subtract(row, share, column):
    for j in range(len(row)):
        row[j] -= share * column[j]


@jit
def ldlt_solve(factored, right):
    """The solution for one right-hand side, from what `factor` gave."""
    count = len(right)
    x = right.astype(np.float64)
    for i in range(count):
        x[i] -= (factored[i, :i] * x[:i]).sum()
    for i in range(count):
        x[i] /= factored[i, i]
    for i in range(count - 1, -1, -1):
        subtract(x[:i], x[i], factored[i, :i])
    return x
