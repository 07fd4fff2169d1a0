"""Regions shared by two views, pooled from their feature maps (RoI-align).

`shared` finds them, `pool` pools them, `crop_loss` compares them without keeping the pooled grids.

Maps are float32, float16 or bfloat16; sums are accumulated in float32, even under autocast; float64
runs the reference. Maps are best stored channels last, as a ViT's tokens are; others are copied
first. Boxes are x1, y1, x2, y2 in pixels of the map, with pixel centres at halves: a box of the
image divided by the patch size. Many regions may share a map, which is not copied.

An empty or inverted box gives 0 everywhere; one with a NaN or an infinity gives NaN. A NaN in a map
reaches the bins that touch its pixel; in float64, all regions of the map. A map index out of range
raises ValueError on a CPU; on a GPU, where checking would synchronise, its regions are NaN.

Extra memory, in bytes: 4 size (H + W) per region (twice that on a GPU); on a CPU also the maps in
float32, if they are not. On a GPU the backward pass of `crop_loss` temporarily needs the gradient
of the student's pooled regions.
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
    """RoI-align: regions of maps as grids [R, C, size, size], channels last in memory.

    features is [N, C, H, W], boxes [R, 4], index [R] int64: the map of each region. Equivalent to
    torchvision's `roi_align(..., aligned=True)` followed, for each region, by a left-right flip if
    `mirrors` and by `turns` counter-clockwise quarter turns (torch.rot90). Gradients flow to the
    features.
    """
    _check_maps("pool", features)
    _check_regions("pool", features, size, (boxes,), (index,), turns, mirrors)
    boxes = boxes.detach()
    if features.dtype == torch.float64:
        _check_index(features, index)
        turns, mirrors = _orientation(index, turns, mirrors)
        return reference.pool(features, boxes.double(), index, size, turns, mirrors)
    pose = _pose(index, turns, mirrors)
    pooled = operators.pool(_channels_last(features), boxes.float(), index, pose, size)
    return pooled.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def crop_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    student_boxes: torch.Tensor,
    teacher_boxes: torch.Tensor,
    pairs: tuple[torch.Tensor, torch.Tensor],
    size: int,
    turns: torch.Tensor | None = None,
    mirrors: torch.Tensor | None = None,
) -> torch.Tensor:
    """GTSA's crop loss of each of R pairs of regions, float32 [R], between -1 and 1.

    Both regions are pooled to size x size bins, the teacher's mirrored and turned as in `pool`; the
    loss is the negative mean cosine of the bins' channels, where a bin of norm 0 has a cosine of 0
    and no gradient. student is [S, C, h, w], teacher [T, C, H, W], boxes are [R, 4]; `pairs` are
    student_index and teacher_index, [R] int64: each region's map. The student gets a gradient, the
    teacher none.
    """
    _check_maps("crop_loss", student)
    _check_maps("crop_loss", teacher)
    kinds = [(maps.dtype, maps.device, maps.shape[1]) for maps in (student, teacher)]
    if kinds[0] != kinds[1]:
        listed = " and ".join(f"{kind[2]} of {kind[0]} on {kind[1]}" for kind in kinds)
        raise ValueError(f"crop_loss takes maps of the same channels, not {listed}: convert one")
    _check_regions(
        "crop_loss", student, size, (student_boxes, teacher_boxes), pairs, turns, mirrors
    )
    teacher, student_boxes, teacher_boxes = (
        teacher.detach(),
        student_boxes.detach(),
        teacher_boxes.detach(),
    )
    if student.dtype == torch.float64:
        _check_index(student, pairs[0])
        _check_index(teacher, pairs[1])
        boxes = student_boxes.double(), teacher_boxes.double()
        turns, mirrors = _orientation(pairs[0], turns, mirrors)
        return reference.crop_loss(student, teacher, *boxes, *pairs, size, turns, mirrors)
    pose = _pose(pairs[0], turns, mirrors)
    maps = _channels_last(student), _channels_last(teacher)
    boxes = student_boxes.float(), teacher_boxes.float()
    return operators.crop_loss(*maps, *boxes, *pairs, pose, size)[0]  # type: ignore[no-any-return]


def _channels_last(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 2, 3, 1).contiguous()


def _pose(
    index: torch.Tensor, turns: torch.Tensor | None, mirrors: torch.Tensor | None
) -> torch.Tensor:
    """Number of quarter turns, plus 4 for a mirror before them."""
    turns, mirrors = _orientation(index, turns, mirrors)
    return turns % 4 + 4 * mirrors


def _orientation(
    index: torch.Tensor, turns: torch.Tensor | None, mirrors: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    none = torch.zeros_like(index)
    return none if turns is None else turns, none.bool() if mirrors is None else mirrors


def _check_maps(function: str, features: torch.Tensor) -> None:
    if features.ndim != 4 or 0 in features.shape[1:]:
        raise ValueError(
            f"{function} takes maps as [N, C, H, W] with C, H and W above 0, not "
            f"{tuple(features.shape)}: turn tokens into maps by mT.unflatten(2, (H, W))"
        )
    if features.dtype not in DTYPES:
        raise ValueError(
            f"{function} takes float32, float16, bfloat16 or float64, not {features.dtype}"
        )


def _check_index(maps: torch.Tensor, index: torch.Tensor) -> None:
    if not maps.is_cuda:
        cpu.check_range(index, len(maps))


def _check_regions(
    function: str,
    features: torch.Tensor,
    size: int,
    boxes: tuple[torch.Tensor, ...],
    indices: tuple[torch.Tensor, ...],
    turns: torch.Tensor | None,
    mirrors: torch.Tensor | None,
) -> None:
    if size < 1:
        raise ValueError(
            f"{function} cannot pool to {size} x {size} bins: pass a size of 1 or more"
        )
    regions = indices[0].shape
    for box in boxes:
        if box.ndim != 2 or box.shape != (*regions, 4) or not box.is_floating_point():
            raise ValueError(
                f"{function} takes boxes as floating point [R, 4], one for each of "
                f"{tuple(regions)} regions, not {box.dtype} {tuple(box.shape)}"
            )
    expected = [*((tensor, torch.int64) for tensor in (*indices, turns)), (mirrors, torch.bool)]
    for tensor, dtype in expected:
        if tensor is not None and (tensor.shape != regions or tensor.dtype != dtype):
            raise ValueError(
                f"{function} takes map indices and turns as int64 and mirrors as bool, [R] with "
                f"the same R, not {tensor.dtype} {tuple(tensor.shape)} for {tuple(regions)} regions"
            )
    for tensor in (*boxes, *indices, turns, mirrors):
        if tensor is not None and tensor.device != features.device:
            raise ValueError(
                f"{function} takes all tensors on the device of the maps, {features.device}, not "
                f"on {tensor.device}: move them there"
            )
