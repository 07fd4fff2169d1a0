"""What pooling and the crop loss are: plain torch, differentiable by autograd."""

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
    """RoI-align, of torchvision's aligned kind, then a mirror and quarter turns.

    out[r, c, p, q] = sum over y and x of down[r, p, y] across[r, q, x] features[index[r], c, y, x],
    where `shares` gives down and across; [R, C, size, size].
    """
    down = shares(boxes[:, 1], boxes[:, 3], features.shape[2], size)
    across = shares(boxes[:, 0], boxes[:, 2], features.shape[3], size)
    upright = torch.einsum("rpy,rcyx,rqx->rcpq", down, features[index], across)
    shown = torch.where(mirrors[:, None, None, None], upright.flip(3), upright)
    turned = torch.stack([torch.rot90(shown, quarters, (2, 3)) for quarters in range(4)])
    return turned[turns % 4, torch.arange(len(shown), device=shown.device)]


def shares(low: torch.Tensor, high: torch.Tensor, pixels: int, size: int) -> torch.Tensor:
    """[R, size, pixels]: what each pixel along an axis counts for in each bin of a box.

    A bin is the mean of ceil(its length) samples, evenly spaced, each between the two pixels next
    to it. Those up to a pixel outside are taken at the edge, those further away are 0. A box
    without extent, or inside out, has no samples and is 0; one with a NaN or infinity is NaN.
    """
    begin = low - 0.5  # the centre of the first pixel is 0
    length = ((high - 0.5) - begin) / size
    count = length.ceil()[:, None, None]
    step = length[:, None, None] / count.clamp(min=1)
    corner = begin[:, None, None] + torch.arange(size).to(low)[:, None] * length[:, None, None]
    # Samples are more than half a pixel apart where there are many: no more than these are near.
    first = ((-1 - corner) / step).floor().sub(1).clamp(min=0)
    number = first + torch.arange(2 * pixels + 6).to(low)
    place = corner + (number + 0.5) * step
    counts = (place >= -1) & (place <= pixels) & (number < count)
    pixel = torch.arange(pixels).to(low)
    near = 1 - (pixel - place.clamp(0, pixels - 1)[..., None]).abs()
    summed = (near.clamp(min=0) * counts[..., None]).sum(2) / count.clamp(min=1)
    return summed.masked_fill(count <= 0, 0).masked_fill(~count.isfinite(), torch.nan)


def crop_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    in_student: torch.Tensor,
    in_teacher: torch.Tensor,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
    size: int,
    turns: torch.Tensor,
    mirrors: torch.Tensor,
) -> torch.Tensor:
    """[R]: -(mean over the cells of cos(s, t)), of pooled channels s and t; 0 where one has norm 0.

    s is the student's region as it is, t the teacher's, mirrored and turned. t is a constant.
    """
    none = torch.zeros_like(turns)
    near = pool(student, in_student, of_student, size, none, none.bool())
    far = pool(teacher.detach(), in_teacher, of_teacher, size, turns, mirrors)
    return -(unit(near) * unit(far)).sum(1).mean((1, 2))


def unit(pooled: torch.Tensor) -> torch.Tensor:
    """Of norm 1, or 0: those have no direction, and no gradient."""
    norm = pooled.norm(dim=1, keepdim=True)
    return pooled / norm.masked_fill(norm == 0, torch.inf)
