"""On the GPU: one block for each cell of a grid or, for gradients, for each pixel of a map.

Every sum has its one order, and no block adds to what another one wrote: two runs are equal to the
bit. Gradients are gathered by pixels that look through all regions of their map, as suits the small
maps and few regions of a ViT's views. Nothing waits for the GPU.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
import triton

from patchmill.kernels.regions import gpu_kernels as kernels

WIDEST = 1024  # channels of a block
BESIDE = 4  # pixels, or cells, of a row that are read at once
PIXELS = 256  # of a block of shares, at most
COMPILER = {"enable_fp_fusion": True}


def of_block(channels: int) -> dict[str, int]:
    wide = min(triton.next_power_of_2(channels), WIDEST)
    each = 8  # of a thread: 16 bytes at a time
    return {"CHANNELS": wide, "BESIDE": BESIDE, "num_warps": max(1, wide // (32 * each))}


def of_shares(size: int, long: int) -> dict[str, int]:
    pixels = min(triton.next_power_of_2(long), PIXELS)
    num_warps = 1 if pixels <= 32 else 4
    return {"K": size, "LONG": long, "BINS": bins(size), "PIXELS": pixels, "num_warps": num_warps}


def bins(size: int) -> int:
    return triton.next_power_of_2(size)  # type: ignore[no-any-return]


def blocks(channels: int) -> int:
    return triton.cdiv(channels, WIDEST)  # type: ignore[no-any-return]


def pool(
    maps: torch.Tensor, boxes: torch.Tensor, index: torch.Tensor, pose: torch.Tensor, size: int
) -> torch.Tensor:
    """As `cpu.pool`."""
    count, height, width, deep = maps.shape
    out = maps.new_empty(len(boxes), size, size, deep)
    if not len(boxes):
        return out
    with _on(maps):
        shares = share_out(boxes, (height, width), size)
        kernels.pool[(len(boxes) * size * size, blocks(deep))](
            maps, index, pose, *shares, out, count, height, width,
            C=deep, K=size, LONG=max(height, width), **of_block(deep), **COMPILER,
        )  # fmt: skip
    return out


def unpool(
    gradient: torch.Tensor,
    boxes: torch.Tensor,
    index: torch.Tensor,
    pose: torch.Tensor,
    shape: tuple[int, int, int],
) -> torch.Tensor:
    """As `cpu.unpool`."""
    with _on(gradient):
        shares = share_out(boxes, shape[1:], gradient.shape[1])
        return _gather(gradient, index, pose, shares, shape)


def compare(
    student: torch.Tensor,
    teacher: torch.Tensor,
    in_student: torch.Tensor,
    in_teacher: torch.Tensor,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
    pose: torch.Tensor,
    size: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `cpu.compare`."""
    regions, near, far, deep = len(pose), student.shape[1:3], teacher.shape[1:3], student.shape[3]
    found = [student.new_empty(regions, size * size, dtype=torch.float32) for _ in range(3)]
    if regions:
        with _on(student):
            shares = share_out(in_student, near, size)
            far_shares = share_out(in_teacher, far, size)
            kernels.compare[(regions * size * size,)](
                student, teacher, of_student, of_teacher, pose, *shares, *far_shares, *found,
                len(student), *near, len(teacher), *far,
                C=deep, K=size, LONG=max(near), FAR_LONG=max(far), **of_block(deep), **COMPILER,
            )  # fmt: skip
    cosines, toward, along = found
    return -cosines.mean(1), toward, along


def slope(
    weight: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    in_student: torch.Tensor,
    in_teacher: torch.Tensor,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
    pose: torch.Tensor,
    toward: torch.Tensor,
    along: torch.Tensor,
    size: int,
) -> torch.Tensor:
    """As `cpu.slope`."""
    regions, near, far, deep = len(pose), student.shape[1:3], teacher.shape[1:3], student.shape[3]
    grids = student.new_empty(regions, size, size, deep)
    if not regions:
        return torch.zeros_like(student)
    with _on(student):
        shares = share_out(in_student, near, size)
        far_shares = share_out(in_teacher, far, size)
        kernels.slope[(regions * size * size, blocks(deep))](
            weight, toward, along, student, teacher, of_student, of_teacher, pose,
            *shares, *far_shares, grids, len(student), *near, len(teacher), *far,
            C=deep, K=size, LONG=max(near), FAR_LONG=max(far), **of_block(deep), **COMPILER,
        )  # fmt: skip
        return _gather(grids, of_student, None, shares, (len(student), *near))


def _gather(
    gradient: torch.Tensor,
    index: torch.Tensor,
    pose: torch.Tensor | None,
    shares: Shares,
    shape: tuple[int, int, int],
) -> torch.Tensor:
    (count, height, width), size, deep = shape, gradient.shape[1], gradient.shape[3]
    out = gradient.new_empty(*shape, deep)
    if not count:
        return out
    order = index.argsort(stable=True)
    ends = torch.searchsorted(index[order], torch.arange(count + 1, device=index.device))
    kernels.unpool[(count * height * width, blocks(deep))](
        gradient, pose, order, ends, *shares, out, height, width,
        C=deep, K=size, LONG=max(height, width), BINS=bins(size),
        POSED=pose is not None, **of_block(deep), **COMPILER,
    )  # fmt: skip
    return out


Shares = tuple[torch.Tensor, torch.Tensor]


def share_out(boxes: torch.Tensor, shape: tuple[int, ...], size: int) -> Shares:
    """What pixels count for in the rows and columns of grids, and which ones these touch."""
    height, width = shape
    long = max(shape)
    shares = boxes.new_empty(len(boxes), 2, size, long)
    spans = boxes.new_empty(len(boxes), 2, size, 2, dtype=torch.int32)
    if len(boxes):
        kernels.share_out[(len(boxes), 2, triton.cdiv(long, PIXELS))](
            boxes, shares, spans, height, width, **of_shares(size, long), **COMPILER
        )
    return shares, spans


def _on(tensor: torch.Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
