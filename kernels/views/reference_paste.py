"""Reference copy-paste: composite the masked part of an image onto another background.

DiLo pastes the whole image before it is cropped. Here the view is pasted right after its resize,

    view = alpha * background + (1 - alpha) * view,    alpha = 1 - mask / 255,

with the mask resampled at the view's pixels, which is the same except for resampling at mask edges.
The mask is a uint8 plane of any size, stretched over the image. A view stays unchanged if its image
has no mask, or if its row asks for a background image and there is none; so does the black area
outside the image.

`weights` defines how masks and background images are sampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchmill.kernels.views import decisions


@dataclass(frozen=True, eq=False)
class Axis:
    """Sampling positions along one axis of a view, before flip and turns."""

    pixel: Tensor  # [size] int64: pixel index in the resized box
    inside: Tensor  # [size] bool: within the resized box
    centre: Tensor  # [size] float64: pixel centres in image coordinates, clamped to the box
    step: float  # image pixels from one view pixel to the next
    length: int  # of the image


def paste(
    view: Tensor,
    row: np.void,
    shape: tuple[int, int],
    mask: np.ndarray | None,
    background_image: np.ndarray | None,
) -> Tensor:
    """Composite the view [3, size, size]; `shape` is the image's height and width."""
    kind = row["paste"]
    if kind == decisions.PASTE_NEVER or mask is None:
        return view
    y_axis = axis_of(row, "y", "h", view.shape[-1], shape[0])
    x_axis = axis_of(row, "x", "w", view.shape[-1], shape[1])
    if kind == decisions.ON_IMAGE:
        if background_image is None:
            return view
        background = resample_background(background_image, row, y_axis, x_axis)
    elif kind == decisions.ON_TEXTURE:
        background = texture(int(row["background"]), y_axis.pixel, x_axis.pixel)
    else:
        background = torch.tensor(row["background"] / 255, dtype=torch.float32)
    alpha = background_alpha(mask, float(row["mask_sigma"]), y_axis, x_axis)
    return alpha * background + (1 - alpha) * view


def axis_of(row: np.void, name: str, side: str, size: int, length: int) -> Axis:
    start, box, full = (int(row[f]) for f in (f"box_{name}", f"box_{side}", f"full_{side}"))
    pixel = int(row[f"win_{name}"]) + torch.arange(size)
    step, nearest = box / full, pixel.clamp(0, full - 1)
    return Axis(pixel, pixel == nearest, start + (nearest + 0.5) * step, step, length)


def background_alpha(mask: np.ndarray, blur_sigma: float, y_axis: Axis, x_axis: Axis) -> Tensor:
    """Alpha of the background at each pixel of the view, 0 to 1; 0 outside the image."""
    inverted = torch.from_numpy(255 - mask) / 255
    matrices = []
    for axis, length in ((y_axis, mask.shape[0]), (x_axis, mask.shape[1])):
        scale = length / axis.length
        matrix = weights(length, axis.centre * scale, axis.step * scale, blur_sigma * scale)
        matrices.append(matrix * axis.inside[:, None])
    return (matrices[0] @ inverted @ matrices[1].T).clamp(0, 1)


def resample_background(image: np.ndarray, row: np.void, y_axis: Axis, x_axis: Axis) -> Tensor:
    """Resample a background image [h, w, 3] at the view's pixels.

    It is enlarged until it covers the pasted image, whose corner then lies at a fraction
    (background_y, background_x), 0 to 0.5, of the remaining margin.
    """
    height, width = image.shape[:2]
    zoom = max(y_axis.length / height, x_axis.length / width, 1.0)
    matrices = []
    for axis, length, fraction in (
        (y_axis, height, float(row["background_y"])),
        (x_axis, width, float(row["background_x"])),
    ):
        corner = fraction * (zoom * length - axis.length)
        matrices.append(weights(length, (corner + axis.centre) / zoom, axis.step / zoom, 0.0))
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1) / 255
    return (matrices[0] @ pixels @ matrices[1].T).clamp(0, 1)


def weights(length: int, centre: Tensor, step: float, blur_sigma: float) -> Tensor:
    """Filter matrix [centres, length] that samples a line of `length` pixels at `centre`, float32.

    With t = max(step, 1), the weight of pixel j for the centre c is

        triangle((j + 1/2 - c) / t),

    each row divided by its sum: the antialiased bilinear resize. A blur with sigma `blur_sigma` (in
    pixels of the line) is folded into the filter: the triangle is replaced by a cubic B-spline with
    the variance of blur and triangle together, blur_sigma^2 + t^2 / 6. The B-spline approximates a
    Gaussian as well as PIL's blur does, and has finite support.
    """
    stretch = max(step, 1.0)
    distance = (torch.arange(length) + 0.5)[None, :] - centre[:, None]
    if blur_sigma > 0:
        unit = (3 * blur_sigma**2 + stretch**2 / 2) ** 0.5
        near, far = (1 - distance.abs() / unit).clamp(0), (2 - distance.abs() / unit).clamp(0)
        weight = far**3 - 4 * near**3
    else:
        weight = (1 - distance.abs() / stretch).clamp(min=0)
    return (weight / weight.sum(1, keepdim=True)).float()


# ------------------------------------------------------------------------------------- textures

_WORD = 0xFFFFFFFF


def texture(seed: int, y: Tensor, x: Tensor) -> Tensor:
    """Procedural texture at integer pixels: [3, ys, xs] in 0..1, a pure function of the seed.

    Four waves between two colours, each at twice the frequency of the previous one and
    phase-shifted by it. Integer arithmetic throughout.
    """
    first_colour, last_colour = hash32(seed, 4), hash32(seed, 5)
    zoom = first_colour >> 24 & 3
    total = wave = torch.zeros(1, dtype=torch.int64)
    for octave in range(4):
        bits = hash32(seed, octave)
        slope_y = ((bits & 1023) - 512) << octave + zoom
        slope_x = ((bits >> 10 & 1023) - 512) << octave + zoom
        offset = (bits >> 20 & 255) << 8
        bend = bits >> 28
        phase = slope_y * y[:, None] + slope_x * x[None, :] + offset + bend * wave
        phase = ((phase + 32768) & 65535) - 32768  # a period is 65536
        magnitude = phase ^ phase >> 15  # |phase|, or one less
        wave = phase * (32767 - magnitude) >> 16  # -4096 to 4095: two parabolas as a sine
        total = total + (wave >> octave)
    fraction = (total + 7680) / 15360
    a, b = (torch.tensor(_rgb(word))[:, None, None] for word in (first_colour, last_colour))
    return (a + (b - a) * fraction) / 255


def hash32(seed: int, index: int) -> int:
    """32 random bits: Chris Wellons's lowbias32 of a Weyl sequence."""
    bits = (seed + 0x9E3779B9 * (index + 1)) & _WORD
    bits = (bits ^ bits >> 16) * 0x7FEB352D & _WORD
    bits = (bits ^ bits >> 15) * 0x846CA68B & _WORD
    return bits ^ bits >> 16


def _rgb(word: int) -> tuple[int, int, int]:
    return word & 255, word >> 8 & 255, word >> 16 & 255
