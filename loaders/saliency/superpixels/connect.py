"""Enforce that superpixels are connected: fragments join a neighbour.

Union-find over runs (stretches of one label in one row), ten times fewer than pixels.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit


@jit
def enforce_connectivity(labels, width, min_size):
    """Relabel so that every label is one 4-connected component of at least `min_size` pixels.

    Smaller components join the one left of their first pixel, or above it in the first column.
    `labels` may have rows wider than `width`. Returns int32 [height, width], numbered in the order
    of first pixels, and the number of labels.
    """
    starts, row_runs = find_runs(labels, width)
    parents = np.arange(len(starts) - 1).astype(np.int32)
    for y in range(1, len(labels)):
        union_rows(labels, width, y, starts, row_runs, parents)
    numbers, count = number_components(parents, starts, row_runs, min_size)
    return paint_runs(numbers, starts, len(labels), width), count


@jit
def find_runs(labels, width):
    """Start of each run as y * width + x, and first run of each row; both with an end marker."""
    height = len(labels)
    starts = np.empty(height * width + 1, np.int32)
    row_runs = np.empty(height + 1, np.int32)
    count = 0
    for y in range(height):
        row = labels[y]
        row_runs[y] = count
        previous = row[0] - 1
        for x in range(width):
            starts[count] = y * width + x
            count += row[x] != previous
            previous = row[x]
    row_runs[height] = count
    starts[count] = height * width
    return starts[: count + 1], row_runs


@jit
def union_rows(labels, width, y, starts, row_runs, parents):
    """Unite runs of row y with runs above that have the same label and share a column."""
    upper, lower = row_runs[y - 1], row_runs[y]
    while upper < row_runs[y] and lower < row_runs[y + 1]:
        if labels[y - 1, starts[upper] % width] == labels[y, starts[lower] % width]:
            a, b = find_root(parents, upper), find_root(parents, lower)
            parents[max(a, b)] = min(a, b)
        upper_end, lower_end = starts[upper + 1] + width, starts[lower + 1]
        upper += upper_end <= lower_end
        lower += lower_end <= upper_end


@jit
def find_root(parents, run):
    """The root of a run's component, halving the path to it."""
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@jit
def number_components(parents, starts, row_runs, min_size):
    """The final label of each run, and the number of labels.

    The root of a component is its first run, so the neighbours it may join are numbered before it.
    """
    count = len(parents)
    sizes = np.zeros(count, np.int32)
    for run in range(count):
        parents[run] = parents[parents[run]]
        sizes[parents[run]] += starts[run + 1] - starts[run]
    numbers = np.empty(count, np.int32)
    labels = 0
    for y in range(len(row_runs) - 1):
        for run in range(row_runs[y], row_runs[y + 1]):
            if parents[run] != run:
                numbers[run] = numbers[parents[run]]
            elif run == 0 or sizes[run] >= min_size:
                numbers[run] = labels
                labels += 1
            else:
                numbers[run] = numbers[run - 1 if run > row_runs[y] else row_runs[y - 1]]
    return numbers, labels


@jit
def paint_runs(numbers, starts, height, width):
    labels = np.empty(height * width, np.int32)
    for run in range(len(numbers)):
        labels[starts[run] : starts[run + 1]] = numbers[run]
    return labels.reshape(height, width)
