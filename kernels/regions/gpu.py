"""GPU backend: one program per bin of a grid or, for gradients, per pixel of a map.

Every sum has a fixed order and no program adds to another one's output (no atomics): two runs are
bit-identical. Gradients are gathered: a pixel scans all regions of its map, which suits the small
maps and few regions of a ViT's views. Nothing synchronises with the GPU.
"""

from __future__ import annotations

import torch
import triton

from patchmill.kernels.common.dispatch import device_guard
from patchmill.kernels.regions import gpu_kernels as kernels
from patchmill.kernels.regions.pairs import RegionPairs

MAX_BLOCK_C = 1024  # channels of a program
BLOCK_X = 4  # pixels, or bins, of a row read at a time
MAX_BLOCK_PIXELS = 256  # of a program of `bin_weights`
COMPILER = {"enable_fp_fusion": True}

Weights = tuple[torch.Tensor, torch.Tensor]  # weights and extents, see gpu_kernels


def pool_blocks(channels: int) -> dict[str, int]:
    """Launch options of the kernels that pool."""
    width = min(triton.next_power_of_2(channels), MAX_BLOCK_C)
    each = 8  # channels per thread: 16 bytes at a time
    return {"BLOCK_C": width, "BLOCK_X": BLOCK_X, "num_warps": max(1, width // (32 * each))}


def weight_blocks(size: int, side: int) -> dict[str, int]:
    """Launch options of `bin_weights`."""
    pixels = min(triton.next_power_of_2(side), MAX_BLOCK_PIXELS)
    num_warps = 1 if pixels <= 32 else 4
    return {
        "K": size, "SIDE": side, "BLOCK_K": block_k(size), "BLOCK_PIXELS": pixels,
        "num_warps": num_warps,
    }  # fmt: skip


def block_k(size: int) -> int:
    """Bins along an axis, rounded up to a power of two."""
    return triton.next_power_of_2(size)  # type: ignore[no-any-return]


def channel_blocks(channels: int) -> int:
    return triton.cdiv(channels, MAX_BLOCK_C)  # type: ignore[no-any-return]


def pool(
    maps: torch.Tensor, boxes: torch.Tensor, index: torch.Tensor, pose: torch.Tensor, size: int
) -> torch.Tensor:
    """RoI-align; same contract as `cpu.pool`."""
    count, height, width, channels = maps.shape
    out = maps.new_empty(len(boxes), size, size, channels)
    if not len(boxes):
        return out
    with device_guard(maps):
        weights = bin_weights(boxes, (height, width), size)
        kernels.pool[(len(boxes) * size * size, channel_blocks(channels))](
            maps, index, pose, *weights, out, count, height, width,
            C=channels, K=size, SIDE=max(height, width), **pool_blocks(channels), **COMPILER,
        )  # fmt: skip
    return out


def pool_backward(
    grad_pooled: torch.Tensor,
    boxes: torch.Tensor,
    index: torch.Tensor,
    pose: torch.Tensor,
    shape: tuple[int, int, int],
) -> torch.Tensor:
    """Gradient w.r.t. the maps; same contract as `cpu.pool_backward`."""
    with device_guard(grad_pooled):
        weights = bin_weights(boxes, shape[1:], grad_pooled.shape[1])
        return _gather_gradient(grad_pooled, index, pose, weights, shape)


def crop_loss(pairs: RegionPairs, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses, scale_t and scale_s; same contract as `cpu.crop_loss`."""
    regions = len(pairs.pose)
    cosines, scale_t, scale_s = (
        pairs.student.new_empty(regions, size * size, dtype=torch.float32) for _ in range(3)
    )
    if regions:
        with device_guard(pairs.student):
            weights, teacher_weights = _weights_of_both(pairs, size)
            kernels.compare_bins[(regions * size * size,)](
                pairs.student, pairs.teacher, pairs.student_index, pairs.teacher_index, pairs.pose,
                *weights, *teacher_weights, cosines, scale_t, scale_s,
                *pairs.student.shape[:3], *pairs.teacher.shape[:3], **_constants(pairs, size),
            )  # fmt: skip
    return -cosines.mean(1), scale_t, scale_s


def crop_loss_backward(
    weight: torch.Tensor,
    pairs: RegionPairs,
    scale_t: torch.Tensor,
    scale_s: torch.Tensor,
    size: int,
) -> torch.Tensor:
    """Gradient w.r.t. the student; same contract as `cpu.crop_loss_backward`."""
    regions, channels = len(pairs.pose), pairs.student.shape[3]
    grad_grids = pairs.student.new_empty(regions, size, size, channels)
    if not regions:
        return torch.zeros_like(pairs.student)
    with device_guard(pairs.student):
        weights, teacher_weights = _weights_of_both(pairs, size)
        kernels.grad_bins[(regions * size * size, channel_blocks(channels))](
            weight, scale_t, scale_s, pairs.student, pairs.teacher, pairs.student_index,
            pairs.teacher_index, pairs.pose, *weights, *teacher_weights, grad_grids,
            *pairs.student.shape[:3], *pairs.teacher.shape[:3], **_constants(pairs, size),
        )  # fmt: skip
        shape = pairs.student.shape[:3]
        return _gather_gradient(grad_grids, pairs.student_index, None, weights, shape)


def _gather_gradient(
    grad_pooled: torch.Tensor,
    index: torch.Tensor,
    pose: torch.Tensor | None,
    weights: Weights,
    shape: tuple[int, ...],
) -> torch.Tensor:
    """Gradient w.r.t. maps of `shape`, from that w.r.t. the regions' grids."""
    (count, height, width), size, channels = shape, grad_pooled.shape[1], grad_pooled.shape[3]
    out = grad_pooled.new_empty(*shape, channels)
    if not count:
        return out
    order = index.argsort(stable=True)
    offsets = torch.searchsorted(index[order], torch.arange(count + 1, device=index.device))
    kernels.pool_backward[(count * height * width, channel_blocks(channels))](
        grad_pooled, pose, order, offsets, *weights, out, height, width,
        C=channels, K=size, SIDE=max(height, width), BLOCK_K=block_k(size),
        POSED=pose is not None, **pool_blocks(channels), **COMPILER,
    )  # fmt: skip
    return out


def bin_weights(boxes: torch.Tensor, shape: tuple[int, ...], size: int) -> Weights:
    """Interpolation weights [R, 2, size, side] and extents [R, 2, size, 2]; see gpu_kernels."""
    height, width = shape
    side = max(shape)
    weights = boxes.new_empty(len(boxes), 2, size, side)
    extents = boxes.new_empty(len(boxes), 2, size, 2, dtype=torch.int32)
    if len(boxes):
        kernels.bin_weights[(len(boxes), 2, triton.cdiv(side, MAX_BLOCK_PIXELS))](
            boxes, weights, extents, height, width, **weight_blocks(size, side), **COMPILER
        )
    return weights, extents


def _weights_of_both(pairs: RegionPairs, size: int) -> tuple[Weights, Weights]:
    return (
        bin_weights(pairs.student_boxes, pairs.student.shape[1:3], size),
        bin_weights(pairs.teacher_boxes, pairs.teacher.shape[1:3], size),
    )


def _constants(pairs: RegionPairs, size: int) -> dict[str, int | bool]:
    """Compile-time constants and launch options of `compare_bins` and `grad_bins`."""
    channels = pairs.student.shape[3]
    sides = {
        "SIDE": max(pairs.student.shape[1:3]),
        "TEACHER_SIDE": max(pairs.teacher.shape[1:3]),
    }
    return {"C": channels, "K": size, **sides, **pool_blocks(channels), **COMPILER}
