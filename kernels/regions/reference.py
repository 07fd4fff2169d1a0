"""Reference implementation of RoI-align and the crop loss in plain PyTorch."""

from __future__ import annotations

import torch


def pool(
    features: torch.Tensor,
    boxes: torch.Tensor,
    index: torch.Tensor,
    size: int,
    turns: torch.Tensor,
    mirrors: torch.Tensor,
) -> torch.Tensor:
    """RoI-align (torchvision's aligned=True), then a mirror and quarter turns; [R, C, size, size].

    pooled[r, c, p, q] = sum over y, x of rows[r, p, y] columns[r, q, x] features[index[r], c, y, x]
    before the mirror and the turns, with rows and columns from `bin_weights`.
    """
    rows = bin_weights(boxes[:, 1], boxes[:, 3], features.shape[2], size)
    columns = bin_weights(boxes[:, 0], boxes[:, 2], features.shape[3], size)
    upright = torch.einsum("rpy,rcyx,rqx->rcpq", rows, features[index], columns)
    mirrored = torch.where(mirrors[:, None, None, None], upright.flip(3), upright)
    turned = torch.stack([torch.rot90(mirrored, quarters, (2, 3)) for quarters in range(4)])
    return turned[turns % 4, torch.arange(len(mirrored), device=mirrored.device)]


def bin_weights(low: torch.Tensor, high: torch.Tensor, pixels: int, size: int) -> torch.Tensor:
    """[R, size, pixels]: weight of each pixel along one axis in each bin of a box.

    A bin is the mean of ceil(its length) evenly spaced samples, each interpolated between the two
    nearest pixels. Samples up to a pixel outside are clamped to the edge, those further away are 0.
    An empty or inverted box has no samples and is 0; one with a NaN or infinity is NaN.
    """
    begin = low - 0.5  # the centre of the first pixel is 0
    length = ((high - 0.5) - begin) / size
    count = length.ceil()[:, None, None]
    step = length[:, None, None] / count.clamp(min=1)
    corner = begin[:, None, None] + torch.arange(size).to(low)[:, None] * length[:, None, None]
    # With many samples they are over half a pixel apart, so no more than these are inside.
    first = ((-1 - corner) / step).floor().sub(1).clamp(min=0)
    number = first + torch.arange(2 * pixels + 6).to(low)
    position = corner + (number + 0.5) * step
    inside = (position >= -1) & (position <= pixels) & (number < count)
    pixel = torch.arange(pixels).to(low)
    near = 1 - (pixel - position.clamp(0, pixels - 1)[..., None]).abs()
    summed = (near.clamp(min=0) * inside[..., None]).sum(2) / count.clamp(min=1)
    return summed.masked_fill(count <= 0, 0).masked_fill(~count.isfinite(), torch.nan)


def crop_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    student_boxes: torch.Tensor,
    teacher_boxes: torch.Tensor,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
    size: int,
    turns: torch.Tensor,
    mirrors: torch.Tensor,
) -> torch.Tensor:
    """[R]: -(mean over the bins of cos(s, t)) of pooled channels s and t; 0 if one has norm 0.

    s is the student's region, t the teacher's, mirrored and turned. t is a constant.
    """
    no_turns = torch.zeros_like(turns)
    s = pool(student, student_boxes, student_index, size, no_turns, no_turns.bool())
    t = pool(teacher.detach(), teacher_boxes, teacher_index, size, turns, mirrors)
    return -(unit(s) * unit(t)).sum(1).mean((1, 2))


def unit(pooled: torch.Tensor) -> torch.Tensor:
    """Channels divided by their norm; zeros, without a gradient, if the norm is 0."""
    norm = pooled.norm(dim=1, keepdim=True)
    return pooled / norm.masked_fill(norm == 0, torch.inf)
