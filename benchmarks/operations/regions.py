"""GTSA's crop loss, against a loop over torchvision's RoI-align and one rot90 per image."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import cosine_similarity

from patchmill.benchmarks.operations.case import (
    EAGER,
    OURS,
    Case,
    Floor,
    noise,
    with_backward,
)
from patchmill.kernels import regions


def cases(device: torch.device, dtype: torch.dtype) -> list[Case]:
    images = 256 if device.type == "cuda" else 8
    return [
        _crop_loss(images, 2, 14, 10, device, dtype),
        _crop_loss(images, 16, 6, 4, device, dtype),
    ]


def _crop_loss(
    images: int, each: int, side: int, size: int, device: torch.device, dtype: torch.dtype
) -> Case:
    """`each` pairs per image: views with maps of `side`, with the two global views, of 14."""
    views = max(each // 2, 1)
    student = _maps(views * images, side, device, dtype, 0).requires_grad_()
    teacher = _maps(2 * images, 14, device, dtype, 1)
    pair = torch.arange(images * each, device=device)
    image, number = pair % images, pair // images  # all images' first pair, then the second, ...
    student_index, teacher_index = number % views * images + image, number % 2 * images + image
    generator = torch.Generator().manual_seed(2)
    corners = torch.rand(2, len(pair), 4, generator=generator).to(device)
    corners[..., 2:] = corners[..., :2] * 0.5 + 0.4 + 0.1 * corners[..., 2:]
    corners[..., :2] *= 0.5
    student_boxes, teacher_boxes = corners[0] * side, corners[1] * 14
    turns = torch.randint(4, (len(pair),), generator=generator).to(device)
    quarters = turns.view(each, images).tolist()

    def ours(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        pairs = (student_index, teacher_index)
        return regions.crop_loss(student, teacher, student_boxes, teacher_boxes, pairs, size, turns)

    def eager(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        losses = []
        for number in range(each):
            part = slice(number * images, (number + 1) * images)
            s = _pool(student, student_index[part], student_boxes[part], size)
            with torch.no_grad():
                upright = _pool(teacher, teacher_index[part], teacher_boxes[part], size)
                turned = map(partial(torch.rot90, dims=(1, 2)), upright, quarters[number])
            t = torch.stack(list(turned))
            losses.append(-cosine_similarity(s, t, dim=1).mean((1, 2)))
        return torch.cat(losses)

    inputs = {"wanted": [student]}
    runs = {
        OURS: with_backward(ours, student, teacher, **inputs),
        EAGER: with_backward(eager, student, teacher, **inputs),
    }
    moved = (2 * student.numel() + teacher.numel()) * student.element_size()
    shape = f"{len(pair)} pairs of {side}² and 14², to {size}², C 768"
    return Case("crop_loss", shape, runs, Floor(moved))


def _maps(
    count: int, side: int, device: torch.device, dtype: torch.dtype, seed: int
) -> torch.Tensor:
    """Maps in the memory layout of a transformer's tokens: channels last."""
    tokens = noise(count, side, side, 768, device=device, dtype=dtype, seed=seed)
    return tokens.permute(0, 3, 1, 2)


def _pool(maps: torch.Tensor, index: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    from torchvision.ops import roi_align

    rois = torch.cat([index[:, None].to(boxes), boxes], dim=1).to(maps.dtype)
    return roi_align(maps, rois, size, aligned=True)
