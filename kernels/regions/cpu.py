"""CPU backend: compiled loops over regions, or over maps if regions are summed.

Sums do not depend on how work is assigned to threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from patchmill.kernels.common import compiling
from patchmill.kernels.common.parallel import parallel_ranges
from patchmill.kernels.regions import cpu_loops as loops
from patchmill.kernels.regions.pairs import RegionPairs

TINY = torch.finfo(torch.float32).tiny


def pool(
    maps: torch.Tensor, boxes: torch.Tensor, index: torch.Tensor, pose: torch.Tensor, size: int
) -> torch.Tensor:
    """RoI-align: [R, size, size, C] in the dtype of the maps."""
    check_range(index, len(maps))
    weights = bin_weights(boxes, maps.shape[1:3], size)
    out = torch.empty(len(boxes), size, size, maps.shape[3])
    run(loops.pool, len(boxes), out, maps.float(), index, pose, *weights)
    return out.to(maps.dtype)


def pool_backward(
    grad_pooled: torch.Tensor,
    boxes: torch.Tensor,
    index: torch.Tensor,
    pose: torch.Tensor,
    shape: tuple[int, int, int],
) -> torch.Tensor:
    """Gradient w.r.t. maps of `shape`, without channels: [N, H, W, C]."""
    count, height, width = shape
    weights = bin_weights(boxes, (height, width), grad_pooled.shape[1])
    out = torch.empty(*shape, grad_pooled.shape[3])
    args = out, grad_pooled.float(), pose, *weights, *sort_by_map(index, count)
    run(loops.pool_backward, channel_blocks(out), *args)
    return out.to(grad_pooled.dtype)


def crop_loss(pairs: RegionPairs, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses [R], and scale_t and scale_s [R, size * size]; see `operators.crop_loss`."""
    check_range(pairs.student_index, len(pairs.student))
    check_range(pairs.teacher_index, len(pairs.teacher))
    sums = torch.empty(len(pairs.pose), size * size, 3)
    run(
        loops.bin_products, len(pairs.pose),
        sums, pairs.student.float(), pairs.teacher.float(), pairs.student_index,
        pairs.teacher_index, pairs.pose, *weights_of_both(pairs, size),
    )  # fmt: skip
    product, square_s, square_t = sums.unbind(2)
    inverse_norm_s, inverse_norm_t = inverse_norm(square_s), inverse_norm(square_t)
    scale_t = inverse_norm_s * inverse_norm_t
    cosine = product * scale_t
    return -cosine.mean(1), scale_t, cosine * inverse_norm_s * inverse_norm_s


def crop_loss_backward(
    weight: torch.Tensor,
    pairs: RegionPairs,
    scale_t: torch.Tensor,
    scale_s: torch.Tensor,
    size: int,
) -> torch.Tensor:
    """Gradient w.r.t. the student, from those w.r.t. each cosine of a region, `weight` [R]."""
    out = torch.empty(pairs.student.shape)
    run(
        loops.crop_loss_backward, channel_blocks(out),
        out, weight, scale_t, scale_s, pairs.student.float(), pairs.teacher.float(),
        pairs.teacher_index, pairs.pose, *weights_of_both(pairs, size),
        *sort_by_map(pairs.student_index, len(pairs.student)),
    )  # fmt: skip
    return out.to(pairs.student.dtype)


def inverse_norm(square: torch.Tensor) -> torch.Tensor:
    """1 / sqrt(square): 0 for a norm of 0, NaN if the norm is not finite."""
    return square.masked_fill(square.isinf(), torch.nan).rsqrt().masked_fill(square < TINY, 0)


class BinWeights(NamedTuple):
    """Interpolation weights of pixels in the rows and columns of bins; see `loops.bin_weights`."""

    rows: torch.Tensor  # [R, size, H] float32
    row_extents: torch.Tensor  # [R, size, 2] int32
    columns: torch.Tensor  # [R, size, W] float32
    column_extents: torch.Tensor  # [R, size, 2] int32


def bin_weights(boxes: torch.Tensor, shape: tuple[int, ...], size: int) -> BinWeights:
    """Weights for boxes [R, 4] in maps of `shape` (height, width)."""
    tensors = []
    for axis, pixels in ((1, shape[0]), (0, shape[1])):
        low, high = boxes[:, axis].contiguous(), boxes[:, axis + 2].contiguous()
        weights = torch.empty(len(boxes), size, pixels)
        extents = torch.empty(len(boxes), size, 2, dtype=torch.int32)
        run(loops.bin_weights, len(boxes), low, high, weights, extents)
        tensors += [weights, extents]
    return BinWeights(*tensors)


def weights_of_both(pairs: RegionPairs, size: int) -> tuple[torch.Tensor, ...]:
    """Weights of the student's boxes, then those of the teacher's."""
    return (
        *bin_weights(pairs.student_boxes, pairs.student.shape[1:3], size),
        *bin_weights(pairs.teacher_boxes, pairs.teacher.shape[1:3], size),
    )


def sort_by_map(index: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Regions sorted by their map, [R], and the start of each map's regions, [count + 1]."""
    order = index.argsort(stable=True)
    return order, torch.searchsorted(index[order], torch.arange(count + 1))


def channel_blocks(maps: torch.Tensor) -> int:
    """Number of blocks of `loops.CHANNELS` channels in all maps."""
    return len(maps) * -(-maps.shape[3] // loops.CHANNELS)


def run(loop: Any, count: int, *tensors: torch.Tensor) -> None:
    """Run a compiled loop over ranges of [0, count) in all threads."""
    arrays = [tensor.numpy() for tensor in tensors]
    with compiling.announce_compilation():
        parallel_ranges(lambda start, stop: loop(*arrays, start, stop), count)


def check_range(index: torch.Tensor, count: int) -> None:
    """Raise ValueError if a region's map does not exist."""
    if len(index) and not 0 <= index.min() <= index.max() < count:
        raise ValueError(
            f"a region's map must be a map index, 0 to {count - 1}, not {int(index.min())} "
            f"to {int(index.max())}"
        )
