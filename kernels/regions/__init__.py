"""Regions that two views share, pooled from their feature maps.

`shared` finds them, `pool` cuts them out, `crop_loss` compares them without keeping what it cut.

Maps are float32, float16 or bfloat16 and sums of float32, whatever the autocast; float64 goes
through the reference. Maps lie best in memory with channels last, as a ViT's tokens do; others are
copied first. Boxes are x1, y1, x2, y2 in pixels of the map, where a pixel's centre is at a half: a
box of an image, divided by the patch size. Many regions may be of one map; no copy is made of it.

A box without extent, or inside out, is 0 everywhere; one with a NaN or an infinity is NaN. A NaN in
a map goes to the cells that touch its pixel, in float64 to all of its regions. A map that is not
there is a ValueError on the CPU; on a GPU, where looking would mean waiting for it, its regions are
NaN.

Memory beside what is given and asked for, in bytes: 4 size (H + W) for each region (twice that on a
GPU); on the CPU also maps in float32, if they are not. The gradient of `crop_loss` on a GPU needs
that of the student's pooled regions for a while.
"""

from __future__ import annotations

import torch

from patchmill.kernels.regions import cpu, operators, reference
from patchmill.kernels.regions.geometry import Shared, shared

__all__ = ["Shared", "crop_loss", "pool", "shared"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def pool(
    features: torch.Tensor,
    boxes: torch.Tensor,
    index: torch.Tensor,
    size: int,
    turns: torch.Tensor | None = None,
    mirrors: torch.Tensor | None = None,
) -> torch.Tensor:
    """Regions of maps as grids, [R, C, size, size], with channels last in memory.

    features is [N, C, H, W], boxes [R, 4], index [R] int64: the map of each region. As
    torchvision's `roi_align(..., aligned=True)`, followed, for each region, by a mirror left to
    right if `mirrors` and by `turns` counter-clockwise quarter turns, as torch.rot90 makes them.
    Gradients go to the features.
    """
    _check_maps("pool", features)
    _check_regions("pool", features, size, (boxes,), (index,), turns, mirrors)
    boxes = boxes.detach()
    if features.dtype == torch.float64:
        _check_there(features, index)
        turns, mirrors = _orientation(index, turns, mirrors)
        return reference.pool(features, boxes.double(), index, size, turns, mirrors)
    pose = _pose(index, turns, mirrors)
    pooled = operators.pool(_channels_last(features), boxes.float(), index, pose, size)
    return pooled.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def crop_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    in_student: torch.Tensor,
    in_teacher: torch.Tensor,
    pairs: tuple[torch.Tensor, torch.Tensor],
    size: int,
    turns: torch.Tensor | None = None,
    mirrors: torch.Tensor | None = None,
) -> torch.Tensor:
    """GTSA's crop loss of each of R pairs of regions, float32 [R], between -1 and 1.

    Both are pooled to size x size cells, the teacher's mirrored and turned as in `pool`; a loss is
    the negative mean cosine of the cells' channels, where a cell of norm 0 has a cosine of 0 and no
    gradient. student is [S, C, h, w], teacher [T, C, H, W], boxes are [R, 4]; `pairs` are
    of_student and of_teacher, [R] int64: each region's map. The student has a gradient, the teacher
    never.
    """
    _check_maps("crop_loss", student)
    _check_maps("crop_loss", teacher)
    kinds = [(maps.dtype, maps.device, maps.shape[1]) for maps in (student, teacher)]
    if kinds[0] != kinds[1]:
        told = " and ".join(f"{kind[2]} of {kind[0]} on {kind[1]}" for kind in kinds)
        raise ValueError(f"crop_loss takes maps of the same channels, not {told}: convert one")
    _check_regions("crop_loss", student, size, (in_student, in_teacher), pairs, turns, mirrors)
    teacher, in_student, in_teacher = teacher.detach(), in_student.detach(), in_teacher.detach()
    if student.dtype == torch.float64:
        _check_there(student, pairs[0])
        _check_there(teacher, pairs[1])
        boxes = in_student.double(), in_teacher.double()
        turns, mirrors = _orientation(pairs[0], turns, mirrors)
        return reference.crop_loss(student, teacher, *boxes, *pairs, size, turns, mirrors)
    pose = _pose(pairs[0], turns, mirrors)
    maps = _channels_last(student), _channels_last(teacher)
    boxes = in_student.float(), in_teacher.float()
    return operators.compare(*maps, *boxes, *pairs, pose, size)[0]  # type: ignore[no-any-return]


def _channels_last(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 2, 3, 1).contiguous()


def _pose(
    index: torch.Tensor, turns: torch.Tensor | None, mirrors: torch.Tensor | None
) -> torch.Tensor:
    """Quarter turns, and 4 more for what is mirrored before."""
    turns, mirrors = _orientation(index, turns, mirrors)
    return turns % 4 + 4 * mirrors


def _orientation(
    index: torch.Tensor, turns: torch.Tensor | None, mirrors: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    none = torch.zeros_like(index)
    return none if turns is None else turns, none.bool() if mirrors is None else mirrors


def _check_maps(face: str, features: torch.Tensor) -> None:
    if features.ndim != 4 or 0 in features.shape[1:]:
        raise ValueError(
            f"{face} takes maps as [N, C, H, W], none of C, H and W 0, not "
            f"{tuple(features.shape)}: tokens become maps by mT.unflatten(2, (H, W))"
        )
    if features.dtype not in DTYPES:
        raise ValueError(
            f"{face} takes float32, float16, bfloat16 or float64, not {features.dtype}"
        )


def _check_there(maps: torch.Tensor, index: torch.Tensor) -> None:
    if not maps.is_cuda:
        cpu.check_range(index, len(maps))


def _check_regions(
    face: str,
    features: torch.Tensor,
    size: int,
    boxes: tuple[torch.Tensor, ...],
    indices: tuple[torch.Tensor, ...],
    turns: torch.Tensor | None,
    mirrors: torch.Tensor | None,
) -> None:
    if size < 1:
        raise ValueError(f"{face} cannot pool to {size} x {size} cells: give a size of 1 or more")
    regions = indices[0].shape
    for box in boxes:
        if box.ndim != 2 or box.shape != (*regions, 4) or not box.is_floating_point():
            raise ValueError(
                f"{face} takes boxes as floating point [R, 4], one for each of {tuple(regions)} "
                f"regions, not {box.dtype} {tuple(box.shape)}"
            )
    whole = [*indices, turns] if turns is not None else [*indices]
    for given, dtype in [*((it, torch.int64) for it in whole), (mirrors, torch.bool)]:
        if given is not None and (given.shape != regions or given.dtype != dtype):
            raise ValueError(
                f"{face} takes maps' numbers and turns as int64 and mirrors as bool, [R] with the "
                f"same R, not {given.dtype} {tuple(given.shape)} beside {tuple(regions)}"
            )
    for given in (*boxes, *indices, turns, mirrors):
        if given is not None and given.device != features.device:
            raise ValueError(
                f"{face} takes all tensors on the device of the maps, {features.device}, not on "
                f"{given.device}: move them there"
            )
