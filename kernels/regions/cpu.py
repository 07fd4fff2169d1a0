"""On the CPU: compiled loops over regions, or over maps where regions add to one another.

Which thread does what has no say in any sum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from patchmill.kernels.common import jit
from patchmill.kernels.common.parallel import parallel_ranges
from patchmill.kernels.regions import cpu_loops as loops

TINY = torch.finfo(torch.float32).tiny


def pool(
    maps: torch.Tensor, boxes: torch.Tensor, index: torch.Tensor, pose: torch.Tensor, size: int
) -> torch.Tensor:
    check_range(index, len(maps))
    shares = share_out(boxes, maps.shape[1:3], size)
    out = torch.empty(len(boxes), size, size, maps.shape[3])
    run(loops.pool, len(boxes), out, maps.float(), index, pose, *shares)
    return out.to(maps.dtype)


def unpool(
    gradient: torch.Tensor,
    boxes: torch.Tensor,
    index: torch.Tensor,
    pose: torch.Tensor,
    shape: tuple[int, int, int],
) -> torch.Tensor:
    count, height, width = shape
    shares = share_out(boxes, (height, width), gradient.shape[1])
    out = torch.empty(*shape, gradient.shape[3])
    given = out, gradient.float(), pose, *shares, *by_map(index, count)
    run(loops.unpool, items(out), *given)
    return out.to(gradient.dtype)


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
    check_range(of_student, len(student))
    check_range(of_teacher, len(teacher))
    near = share_out(in_student, student.shape[1:3], size)
    far = share_out(in_teacher, teacher.shape[1:3], size)
    sums = torch.empty(len(pose), size * size, 3)
    maps = student.float(), teacher.float()
    run(loops.compare, len(pose), sums, *maps, of_student, of_teacher, pose, *near, *far)
    product, square_s, square_t = sums.unbind(2)
    scale_s, scale_t = scale(square_s), scale(square_t)
    toward = scale_s * scale_t
    cosine = product * toward
    return -cosine.mean(1), toward, cosine * scale_s * scale_s


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
    near = share_out(in_student, student.shape[1:3], size)
    far = share_out(in_teacher, teacher.shape[1:3], size)
    out = torch.empty(student.shape)
    maps = student.float(), teacher.float()
    slots = by_map(of_student, len(student))
    run(
        loops.slope, items(out),
        out, weight, toward, along, *maps, of_teacher, pose, *near, *far, *slots,
    )  # fmt: skip
    return out.to(student.dtype)


def scale(square: torch.Tensor) -> torch.Tensor:
    """What makes a norm 1: 0 for those of 0, NaN where there is no finite norm."""
    return square.masked_fill(square.isinf(), torch.nan).rsqrt().masked_fill(square < TINY, 0)


class Shares(NamedTuple):
    """What pixels count for in the rows and columns of pooled regions; see `loops.share_out`."""

    down: torch.Tensor
    down_spans: torch.Tensor
    across: torch.Tensor
    across_spans: torch.Tensor


def share_out(boxes: torch.Tensor, shape: tuple[int, ...], size: int) -> Shares:
    found = []
    for axis, pixels in ((1, shape[0]), (0, shape[1])):
        low, high = boxes[:, axis].contiguous(), boxes[:, axis + 2].contiguous()
        shares = torch.empty(len(boxes), size, pixels)
        spans = torch.empty(len(boxes), size, 2, dtype=torch.int32)
        run(loops.share_out, len(boxes), low, high, shares, spans)
        found += [shares, spans]
    return Shares(*found)


def by_map(index: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Regions sorted by their maps, and where each map's begin."""
    order = index.argsort(stable=True)
    return order, torch.searchsorted(index[order], torch.arange(count + 1))


def items(maps: torch.Tensor) -> int:
    return len(maps) * -(-maps.shape[3] // loops.CHANNELS)


def run(loop: Any, count: int, *tensors: torch.Tensor) -> None:
    arrays = [tensor.numpy() for tensor in tensors]
    with jit.announce_compilation():
        parallel_ranges(lambda start, stop: loop(*arrays, start, stop), count)


def check_range(index: torch.Tensor, count: int) -> None:
    if len(index) and not 0 <= index.min() <= index.max() < count:
        raise ValueError(
            f"a region's map must be the number of one, 0 to {count - 1}, not {int(index.min())} "
            f"to {int(index.max())}"
        )
