"""CPU backend of the bag loss: each bag is processed while its rows are in the processor's cache.

float32 is read in place; float16 and bfloat16 are converted to float32 a few bags at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch

from patchmill.kernels.bags.cpu_loops import bag_cosines, bag_gradients
from patchmill.kernels.common.compiling import announce_compilation
from patchmill.kernels.common.parallel import parallel_ranges

CONVERTED = 1 << 20  # elements converted at a time: 4 MB of float32
ELEMENTS_PER_THREAD = 1 << 15  # at least


def bag_loss(z: torch.Tensor, saved: torch.Tensor) -> torch.Tensor:
    """Compute the loss; nothing is `saved` on a CPU."""
    views, bags, d = z.shape
    cosines = np.empty(bags, np.float32)
    for first, rows in _float32_blocks(z):
        flat, *strides = _flat_and_strides(rows)
        loop = functools.partial(bag_cosines, flat, *strides, views, d, cosines[first:])
        _run(loop, rows)
    return torch.tensor(-cosines.sum(dtype=np.float64) / (views * bags), dtype=torch.float32)


def bag_loss_backward(
    grad_loss: torch.Tensor, z: torch.Tensor, saved: torch.Tensor
) -> torch.Tensor:
    """Gradient w.r.t. z, in its dtype; recomputing the means takes no longer than reading them."""
    views, bags, d = z.shape
    scale = np.float32(-grad_loss.item() / (views * bags))
    out = torch.empty_like(z)
    for first, rows in _float32_blocks(z):
        grad = out if rows is z else torch.empty_like(rows)
        flat, *strides = _flat_and_strides(rows)
        grad_flat, *grad_strides = _flat_and_strides(grad)
        loop = functools.partial(
            bag_gradients, flat, grad_flat, *strides, *grad_strides, views, d, scale
        )
        _run(loop, rows)
        if grad is not out:
            out[:, first : first + rows.shape[1]] = grad
    return out


def _float32_blocks(z: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Blocks of bags in float32, each with the index of its first bag."""
    if z.dtype == torch.float32:
        yield 0, z
        return
    views, bags, d = z.shape
    step = max(1, CONVERTED // (views * d))
    for first in range(0, bags, step):
        yield first, z[:, first : first + step].float().contiguous()


def _flat_and_strides(rows: torch.Tensor) -> tuple[np.ndarray, int, int]:
    """The memory that the rows span as a flat array, and the strides between views and bags."""
    (views, bags, d), (view_stride, bag_stride, _) = rows.shape, rows.stride()
    numbers = (views - 1) * view_stride + (bags - 1) * bag_stride + d
    return rows.detach().as_strided((numbers,), (1,)).numpy(), view_stride, bag_stride


def _run(loop: functools.partial[None], rows: torch.Tensor) -> None:
    views, bags, d = rows.shape
    with announce_compilation():
        parallel_ranges(loop, bags, max(1, ELEMENTS_PER_THREAD // (views * d)))
