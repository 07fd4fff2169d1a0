"""Compiled loops of the bag loss on the CPU.

With S the sum of a bag's rows normalised to unit length and m their mean, the bag's cosines add up
to S . m/|m|. So one pass over a bag's rows computes its loss, and the gradient of each row needs
two vectors of the bag: the mean's unit vector and the gradient through the mean.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.bags.reference import EPS
from patchmill.kernels.common.jit import jit, jit_ieee

ONE, ZERO, SHORTEST = np.float32(1), np.float32(0), np.float32(EPS)


@jit
def bag_cosines(flat, view_stride, bag_stride, views, d, cosines, start, stop):
    """cosines[bag] = sum of the cosines of the bag's rows with its mean."""
    sums, unit_sums = np.empty(d, np.float32), np.empty(d, np.float32)
    for bag in range(start, stop):
        sum_rows(flat, bag * bag_stride, view_stride, views, sums, unit_sums)
        cosines[bag] = bag_vectors(views, sums, unit_sums)


@jit
def bag_gradients(
    flat,
    grad_flat,
    view_stride,
    bag_stride,
    grad_view_stride,
    grad_bag_stride,
    views,
    d,
    scale,
    start,
    stop,
):
    """Gradient w.r.t. each row, times `scale`; the bag's vectors are recomputed."""
    unit_mean, mean_grad = np.empty(d, np.float32), np.empty(d, np.float32)
    for bag in range(start, stop):
        sum_rows(flat, bag * bag_stride, view_stride, views, unit_mean, mean_grad)
        bag_vectors(views, unit_mean, mean_grad)
        for view in range(views):
            at = bag * bag_stride + view * view_stride
            grad_at = bag * grad_bag_stride + view * grad_view_stride
            row, grad = flat[at : at + d], grad_flat[grad_at : grad_at + d]
            row_gradient(row, unit_mean, mean_grad, scale, grad)


@jit
def sum_rows(flat, at, view_stride, views, sums, unit_sums):
    """Sum of a bag's rows, and sum of the rows normalised to unit length."""
    d = len(sums)
    sums[:] = ZERO
    unit_sums[:] = ZERO
    for _ in range(views):
        row = flat[at : at + d]
        squares = ZERO
        for k in range(d):
            squares += row[k] * row[k]
        inverse, _is_long = inverse_length(squares)
        for k in range(d):
            sums[k] += row[k]
            unit_sums[k] += row[k] * inverse
        at += view_stride


@jit
def bag_vectors(views, sums, unit_sums):
    """The sum of cosines, unit_sums . unit(mean); overwrites both arguments.

    `sums` becomes the mean's unit vector, `unit_sums` the gradient through the mean. A NaN in
    either spreads to all of the latter.
    """
    d, share = len(sums), ONE / np.float32(views)
    squares = ZERO
    for k in range(d):
        sums[k] *= share
        squares += sums[k] * sums[k]
    inverse, is_long = inverse_length(squares)
    cosines = ZERO
    for k in range(d):
        sums[k] *= inverse
        cosines += sums[k] * unit_sums[k]
    for k in range(d):
        unit_sums[k] = (unit_sums[k] - is_long * cosines * sums[k]) * (inverse * share)
    return cosines


@jit
def row_gradient(row, unit_mean, mean_grad, scale, grad):
    """grad = scale * (gradient of the row's own cosine + gradient through the mean)."""
    squares, dot = ZERO, ZERO
    for k in range(len(unit_mean)):
        squares += row[k] * row[k]
        dot += row[k] * unit_mean[k]
    inverse, is_long = inverse_length(squares)
    projection = is_long * dot * inverse * inverse
    for k in range(len(unit_mean)):
        grad[k] = scale * (inverse * (unit_mean[k] - projection * row[k]) + mean_grad[k])


@jit_ieee  # comparisons must be right for NaN
def inverse_length(squares):
    """1 / max(sqrt(squares), EPS), and 1 if the length is above EPS or NaN, else 0."""
    length = np.sqrt(squares)
    if length <= SHORTEST:
        return ONE / SHORTEST, ZERO
    return ONE / length, ONE
