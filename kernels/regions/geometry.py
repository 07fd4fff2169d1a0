"""`shared`: the region that two views of an image both show, in pixels of each view."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Shared(NamedTuple):
    """For every global view g and every view v of an image; tensors on the boxes' device.

    A grid pooled from `in_g` of g's map, mirrored left to right if `mirrors` and then turned by
    `turns`, shows in each cell what the grid pooled from `in_v` of v's map shows there.
    """

    in_g: torch.Tensor  # [B, G, V, 4]: x1, y1, x2, y2 in g's pixels; divide by the patch size
    in_v: torch.Tensor  # [B, G, V, 4]: in v's pixels
    turns: torch.Tensor  # [B, G, V] int64: counter-clockwise quarter turns, 0 to 3
    mirrors: torch.Tensor  # [B, G, V] bool


def shared(
    box_g: torch.Tensor,
    turns_g: torch.Tensor,
    size_g: int,
    box_v: torch.Tensor,
    turns_v: torch.Tensor,
    size_v: int,
    flip_g: torch.Tensor | None = None,
    flip_v: torch.Tensor | None = None,
) -> Shared:
    """Shared regions of global views [B, G] and views [B, V], from their crops in the image.

    box_* are [B, *, 4] in source pixels, as in `Geometry`; size_* is a view's side in pixels;
    turns_* and flip_* are [B, *]. Views that do not overlap get empty boxes. No synchronisation.
    """
    _check("g", box_g, turns_g, flip_g)
    _check("v", box_v, turns_v, flip_v)
    if len(box_g) != len(box_v):
        raise ValueError(
            f"shared takes views of the same images, not of {len(box_g)} and of {len(box_v)}"
        )
    crop_g, crop_v = box_g[:, :, None], box_v[:, None]
    low = torch.maximum(crop_g[..., :2], crop_v[..., :2])
    high = torch.maximum(torch.minimum(crop_g[..., 2:], crop_v[..., 2:]), low)
    overlap = torch.stack([low, high], -2)  # [B, G, V, corner, axis]

    turns_g, turns_v = turns_g[:, :, None], turns_v[:, None]
    flip_g = torch.zeros_like(turns_g).bool() if flip_g is None else flip_g[:, :, None]
    flip_v = torch.zeros_like(turns_v).bool() if flip_v is None else flip_v[:, None]
    mirrors = flip_g ^ flip_v
    # A mirror after a turn equals the opposite turn after the mirror.
    turns = torch.where(mirrors, turns_v + turns_g, turns_v - turns_g) % 4
    return Shared(
        in_g=_in_view(overlap, crop_g, flip_g, turns_g, size_g),
        in_v=_in_view(overlap, crop_v, flip_v, turns_v, size_v),
        turns=turns,
        mirrors=mirrors,
    )


def _in_view(
    box: torch.Tensor, crop: torch.Tensor, flip: torch.Tensor, turns: torch.Tensor, size: int
) -> torch.Tensor:
    """A source box, [..., corner, axis], in pixels of the view that crops `crop`: [..., 4]."""
    first, last = crop[..., None, :2], crop[..., None, 2:]
    x1, y1, x2, y2 = ((box - first) * (size / (last - first))).flatten(-2).unbind(-1)
    quarter, half = turns % 2 == 1, turns % 4 >= 2
    x1, x2 = torch.where(flip, size - x2, x1), torch.where(flip, size - x1, x2)
    x1, y1, x2, y2 = (
        torch.where(quarter, turned, upright)
        for turned, upright in zip((y1, size - x2, y2, size - x1), (x1, y1, x2, y2), strict=True)
    )
    x1, y1, x2, y2 = (
        torch.where(half, size - turned, upright)
        for turned, upright in zip((x2, y2, x1, y1), (x1, y1, x2, y2), strict=True)
    )
    return torch.stack([x1, y1, x2, y2], -1)


def _check(which: str, box: torch.Tensor, turns: torch.Tensor, flip: torch.Tensor | None) -> None:
    shapes = [tuple(tensor.shape) for tensor in (box, turns, flip) if tensor is not None]
    if box.ndim != 3 or box.shape[2] != 4 or any(shape != shapes[0][:2] for shape in shapes[1:]):
        raise ValueError(
            f"shared takes box_{which} as [B, views, 4], turns_{which} and flip_{which} as "
            f"[B, views], not {' and '.join(map(str, shapes))}"
        )
    if not box.is_floating_point() or turns.is_floating_point():
        raise ValueError(
            f"shared takes box_{which} as floating point and turns_{which} as integers, not "
            f"{box.dtype} and {turns.dtype}"
        )
    if flip is not None and flip.dtype != torch.bool:
        raise ValueError(f"shared takes flip_{which} as bool, not {flip.dtype}")
