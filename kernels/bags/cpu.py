"""Bags on the CPU: each is taken up whole while its rows are in the processor's cache.

Float32 is read where it lies. float16 and bfloat16 become float32 a few bags at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch

from patchmill.kernels.bags.reference import EPS
from patchmill.kernels.common.jit import announce_compilation, jit, jit_ieee
from patchmill.kernels.common.parallel import parallel_ranges

CONVERTED = 1 << 20  # numbers at a time: 4 MB of float32
LEAST = 1 << 15  # numbers that are worth a thread
ONE, ZERO, SHORTEST = np.float32(1), np.float32(0), np.float32(EPS)


def forward(z: torch.Tensor) -> torch.Tensor:
    """The loss."""
    views, bags, d = z.shape
    cosines = np.empty(bags, np.float32)
    for first, rows in _blocks(z):
        flat, *steps = _lines(rows)
        _over(functools.partial(meet, flat, *steps, views, d, cosines[first:]), rows)
    return torch.tensor(-cosines.sum(dtype=np.float64) / (views * bags), dtype=torch.float32)


def backward(gradient: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """The gradient by z, in its type. Finding the means anew takes no longer than reading them."""
    views, bags, d = z.shape
    scale = np.float32(-gradient.item() / (views * bags))
    out = torch.empty_like(z)
    for first, rows in _blocks(z):
        slopes = out if rows is z else torch.empty_like(rows)
        flat, *steps = _lines(rows)
        to, *to_steps = _lines(slopes)
        _over(functools.partial(pull, flat, to, *steps, *to_steps, views, d, scale), rows)
        if slopes is not out:
            out[:, first : first + rows.shape[1]] = slopes
    return out


def _blocks(z: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Float32 rows of some of the bags, and the number of the first one of them."""
    if z.dtype == torch.float32:
        yield 0, z
        return
    views, bags, d = z.shape
    step = max(1, CONVERTED // (views * d))
    for first in range(0, bags, step):
        yield first, z[:, first : first + step].float().contiguous()


def _lines(rows: torch.Tensor) -> tuple[np.ndarray, int, int]:
    """All that rows with contiguous numbers lie in, and the steps between views and bags."""
    (views, bags, d), (view_step, bag_step, _) = rows.shape, rows.stride()
    numbers = (views - 1) * view_step + (bags - 1) * bag_step + d
    return rows.detach().as_strided((numbers,), (1,)).numpy(), view_step, bag_step


def _over(work: functools.partial[None], rows: torch.Tensor) -> None:
    views, bags, d = rows.shape
    with announce_compilation():
        parallel_ranges(work, bags, max(1, LEAST // (views * d)))


# ------------------------------------------------------------------------------------- compiled


@jit
def meet(flat, view_step, bag_step, views, d, cosines, start, stop):
    """Each bag's sum of cosines."""
    sums, units = np.empty(d, np.float32), np.empty(d, np.float32)
    for bag in range(start, stop):
        gather(flat, bag * bag_step, view_step, views, sums, units)
        cosines[bag] = settle(views, sums, units)


@jit
def pull(
    flat, to, view_step, bag_step, to_view_step, to_bag_step, views, d, scale, start, stop
):  # fmt: skip
    """Each row's gradient."""
    direction, swing = np.empty(d, np.float32), np.empty(d, np.float32)
    for bag in range(start, stop):
        gather(flat, bag * bag_step, view_step, views, direction, swing)
        settle(views, direction, swing)
        for view in range(views):
            at, to_at = bag * bag_step + view * view_step, bag * to_bag_step + view * to_view_step
            turn(flat[at : at + d], direction, swing, scale, to[to_at : to_at + d])


@jit
def gather(flat, at, view_step, views, sums, units):
    """The sum of a bag's rows, and the sum of their units."""
    d = len(sums)
    sums[:] = ZERO
    units[:] = ZERO
    for _ in range(views):
        row = flat[at : at + d]
        squares = ZERO
        for k in range(d):
            squares += row[k] * row[k]
        inverse, _longer = inverse_of(squares)
        for k in range(d):
            sums[k] += row[k]
            units[k] += row[k] * inverse
        at += view_step


@jit
def settle(views, sums, units):
    """The sum of cosines, which is the units' sum along the mean.

    The sums become the mean's unit (direction), the units what turns the mean (swing). A NaN
    anywhere is in all of the swing.
    """
    d, share = len(sums), ONE / np.float32(views)
    squares = ZERO
    for k in range(d):
        sums[k] *= share
        squares += sums[k] * sums[k]
    inverse, longer = inverse_of(squares)
    cosines = ZERO
    for k in range(d):
        sums[k] *= inverse
        cosines += sums[k] * units[k]
    for k in range(d):
        units[k] = (units[k] - longer * cosines * sums[k]) * (inverse * share)
    return cosines


@jit
def turn(row, direction, swing, scale, out):
    """The gradient of one row."""
    squares, along = ZERO, ZERO
    for k in range(len(direction)):
        squares += row[k] * row[k]
        along += row[k] * direction[k]
    inverse, longer = inverse_of(squares)
    back = longer * along * inverse * inverse
    for k in range(len(direction)):
        out[k] = scale * (inverse * (direction[k] - back * row[k]) + swing[k])


@jit_ieee  # which knows of NaN
def inverse_of(squares):
    """1 / the length, of no less than EPS, and 1 if it is longer than that or NaN, or else 0."""
    length = np.sqrt(squares)
    if length <= SHORTEST:
        return ONE / SHORTEST, ZERO
    return ONE / length, ONE
