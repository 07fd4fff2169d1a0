"""What belongs to one superpixel hangs together: fragments go to a neighbour.

Works on runs, stretches of one label in one row, of which there are a tenth as many as pixels.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit


@jit
def enforce_connectivity(labels, width, smallest):
    """Relabel so that every label is one 4-connected piece, of at least `smallest` pixels.

    Smaller pieces join the piece left of their first pixel, or above it in the first column.
    `labels` may have rows wider than `width`. Returns int32 [height, width], numbered in the order
    of first pixels, and how many there are.
    """
    starts, firsts = runs_of(labels, width)
    parents = np.arange(len(starts) - 1).astype(np.int32)
    for y in range(1, len(labels)):
        join_rows(labels, width, y, starts, firsts, parents)
    return paint(numbered(parents, starts, firsts, smallest), starts, len(labels), width)


@jit
def runs_of(labels, width):
    """Where each run starts, as y * width + x, with an end; and each row's first run, likewise."""
    height = len(labels)
    starts = np.empty(height * width + 1, np.int32)
    firsts = np.empty(height + 1, np.int32)
    count = 0
    for y in range(height):
        row = labels[y]
        firsts[y] = count
        previous = row[0] - 1
        for x in range(width):
            starts[count] = y * width + x
            count += row[x] != previous
            previous = row[x]
    firsts[height] = count
    starts[count] = height * width
    return starts[: count + 1], firsts


@jit
def join_rows(labels, width, y, starts, firsts, parents):
    """Unite runs of row y with those above that have the same label and share a column."""
    upper, lower = firsts[y - 1], firsts[y]
    while upper < firsts[y] and lower < firsts[y + 1]:
        if labels[y - 1, starts[upper] % width] == labels[y, starts[lower] % width]:
            a, b = root(parents, upper), root(parents, lower)
            parents[max(a, b)] = min(a, b)
        upper_end, lower_end = starts[upper + 1] + width, starts[lower + 1]
        upper += upper_end <= lower_end
        lower += lower_end <= upper_end


@jit
def root(parents, run):
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@jit
def numbered(parents, starts, firsts, smallest):
    """The final label of each run. A piece's root is its first run, so neighbours come before."""
    count = len(parents)
    sizes = np.zeros(count, np.int32)
    for run in range(count):
        parents[run] = parents[parents[run]]
        sizes[parents[run]] += starts[run + 1] - starts[run]
    numbers = np.empty(count, np.int32)
    found = 0
    for y in range(len(firsts) - 1):
        for run in range(firsts[y], firsts[y + 1]):
            if parents[run] != run:
                numbers[run] = numbers[parents[run]]
            elif run == 0 or sizes[run] >= smallest:
                numbers[run] = found
                found += 1
            else:
                numbers[run] = numbers[run - 1 if run > firsts[y] else firsts[y - 1]]
    return numbers, found


@jit
def paint(numbers_found, starts, height, width):
    numbers, found = numbers_found
    labels = np.empty(height * width, np.int32)
    for run in range(len(numbers)):
        labels[starts[run] : starts[run + 1]] = numbers[run]
    return labels.reshape(height, width), found
