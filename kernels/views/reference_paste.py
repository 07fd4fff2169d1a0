"""Copy-paste in the definition of a view: the masked part of the image on another background.

DiLo pastes the whole image before it is cropped. Here the view is pasted right after its resize,

    view = share * background + (1 - share) * view,    share = 1 - mask / 255,

by the mask at the same places, which is the same but for resampling where the mask has an edge. The
mask is a uint8 plane of any size that covers the image corner to corner. A view of an image without
a mask (or without a companion, where the background is one) stays as it is, and so does what lies
outside of the image: black.

Planes are sampled alike, whatever they hold: see `weights`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchmill.kernels.views import decisions as r


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a view, of as yet neither flipped nor turned pixels."""

    place: Tensor  # [size] int64: pixels of the resized box
    inside: Tensor  # [size] bool: not beyond its ends
    centre: Tensor  # [size] float64: where their middles lie in the image, or the nearest does
    step: float  # from one to the next, in pixels of the image
    length: int  # of the image


def paste(
    view: Tensor,
    row: np.void,
    shape: tuple[int, int],
    mask: np.ndarray | None,
    companion: np.ndarray | None,
) -> Tensor:
    """The view [3, size, size] with its background; `shape` is the image's height and width."""
    kind = row["paste"]
    if kind == r.PASTE_NEVER or mask is None:
        return view
    down = axis_of(row, "y", "h", view.shape[-1], shape[0])
    across = axis_of(row, "x", "w", view.shape[-1], shape[1])
    if kind == r.ON_IMAGE:
        if companion is None:
            return view
        ground = behind(companion, row, down, across)
    elif kind == r.ON_TEXTURE:
        ground = texture(int(row["ground"]), down.place, across.place)
    else:
        ground = torch.tensor(row["ground"] / 255, dtype=torch.float32)
    share = shown(mask, float(row["soft"]), down, across)
    return share * ground + (1 - share) * view


def axis_of(row: np.void, name: str, side: str, size: int, length: int) -> Axis:
    start, box, full = (int(row[f]) for f in (f"box_{name}", f"box_{side}", f"full_{side}"))
    place = int(row[f"win_{name}"]) + torch.arange(size)
    step, nearest = box / full, place.clamp(0, full - 1)
    return Axis(place, place == nearest, start + (nearest + 0.5) * step, step, length)


def shown(mask: np.ndarray, soft: float, down: Axis, across: Axis) -> Tensor:
    """The background's share of each pixel, 0 to 1; `soft` is the sigma of the mask's blur."""
    holes = torch.from_numpy(255 - mask) / 255
    weight = []
    for axis, length in ((down, mask.shape[0]), (across, mask.shape[1])):
        scale = length / axis.length
        own = weights(length, axis.centre * scale, axis.step * scale, soft * scale)
        weight.append(own * axis.inside[:, None])
    return (weight[0] @ holes @ weight[1].T).clamp(0, 1)


def behind(companion: np.ndarray, row: np.void, down: Axis, across: Axis) -> Tensor:
    """Another image [h, w, 3], enlarged until it covers this one, which then lies somewhere on it:
    from its upper left corner to the middle of the room there is."""
    height, width = companion.shape[:2]
    zoom = max(down.length / height, across.length / width, 1.0)
    weight = []
    for axis, length, share in (
        (down, height, float(row["ground_y"])),
        (across, width, float(row["ground_x"])),
    ):
        corner = share * (zoom * length - axis.length)
        weight.append(weights(length, (corner + axis.centre) / zoom, axis.step / zoom, 0.0))
    pixels = torch.from_numpy(companion.copy()).permute(2, 0, 1) / 255
    return (weight[0] @ pixels @ weight[1].T).clamp(0, 1)


def weights(length: int, centre: Tensor, step: float, soft: float) -> Tensor:
    """How places `step` apart sample a line of `length` pixels: float32 [places, length].

    With t = max(step, 1), the weight of pixel j for the place c is

        triangle((j + 1/2 - c) / t),

    each row divided by its sum: the antialiased bilinear resize. A blur of sigma `soft` (in pixels
    of the line) is in the filter: instead of the triangle there is a cubic B-spline, which is as
    near to a Gaussian as PIL's blur and has an end, with the variance of the blur and of the
    triangle, soft^2 + t^2 / 6.
    """
    stretch = max(step, 1.0)
    distance = (torch.arange(length) + 0.5)[None, :] - centre[:, None]
    if soft > 0:
        reach = (3 * soft**2 + stretch**2 / 2) ** 0.5
        near, far = (1 - distance.abs() / reach).clamp(0), (2 - distance.abs() / reach).clamp(0)
        weight = far**3 - 4 * near**3
    else:
        weight = (1 - distance.abs() / stretch).clamp(min=0)
    return (weight / weight.sum(1, keepdim=True)).float()


# ------------------------------------------------------------------------------------- textures

_WORD = 0xFFFFFFFF


def texture(seed: int, y: Tensor, x: Tensor) -> Tensor:
    """Four waves, each twice as fine as the one before and bent by it, between two colours.

    A pure function of the seed and of whole pixels, computed in whole numbers: [3, ys, xs], 0 to 1.
    """
    first, last = hashed(seed, 4), hashed(seed, 5)
    zoom = first >> 24 & 3
    total = wave = torch.zeros(1, dtype=torch.int64)
    for octave in range(4):
        bits = hashed(seed, octave)
        slope_y = ((bits & 1023) - 512) << octave + zoom
        slope_x = ((bits >> 10 & 1023) - 512) << octave + zoom
        phase = (bits >> 20 & 255) << 8
        bend = bits >> 28
        turn = slope_y * y[:, None] + slope_x * x[None, :] + phase + bend * wave
        turn = ((turn + 32768) & 65535) - 32768  # of 65536 in a whole period
        fold = turn ^ turn >> 15  # |turn|, or one less
        wave = turn * (32767 - fold) >> 16  # -4096 to 4095: two parabolas for a sine
        total = total + (wave >> octave)
    share = (total + 7680) / 15360
    a, b = (torch.tensor(_bytes(word))[:, None, None] for word in (first, last))
    return (a + (b - a) * share) / 255


def hashed(seed: int, index: int) -> int:
    """32 random bits: Chris Wellons's lowbias32 of a sequence."""
    bits = (seed + 0x9E3779B9 * (index + 1)) & _WORD
    bits = (bits ^ bits >> 16) * 0x7FEB352D & _WORD
    bits = (bits ^ bits >> 15) * 0x846CA68B & _WORD
    return bits ^ bits >> 16


def _bytes(word: int) -> tuple[int, int, int]:
    return word & 255, word >> 8 & 255, word >> 16 & 255
