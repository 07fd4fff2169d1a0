"""Reference renderer: defines a view in plain float32 torch; every fast renderer must match it.

A view is rendered from one uint8 image and one decision row (see `decisions`), in these steps:

    box -> antialiased resize -> clamp -> window -> copy-paste -> flip -> quarter turns
        -> grey first -> jitter in the row's order -> grey last -> blur -> solarise -> normalise

Values are 0 to 1 between the steps and are never rounded to 8 bits. Images are [3, height, width].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from patchmill.kernels.views import decisions
from patchmill.kernels.views.decisions import Target
from patchmill.kernels.views.reference_paste import paste

OptionalArrays = Sequence[np.ndarray | None]  # one per image, or None


def render(
    images: Sequence[np.ndarray],
    rows: np.ndarray,
    targets: Sequence[Target],
    masks: OptionalArrays | None = None,
    backgrounds: OptionalArrays | None = None,
) -> dict[str, Tensor]:
    """Render all views of all images, normalised: name -> float32 [N, count, 3, size, size].

    `images` are N uint8 arrays [height, width, 3]; `rows` is [N, V], where the V views are those of
    the targets in order. For copy-paste, `masks` are uint8 planes of any size, stretched over
    their images, and `backgrounds` are uint8 images; None for an image without one.
    """
    masks = masks or [None] * len(images)
    backgrounds = backgrounds or [None] * len(images)
    views: dict[str, Tensor] = {}
    first = 0
    for target in targets:
        batch = [
            torch.stack([render_view(image, row, target, mask, background) for row in image_rows])
            for image, image_rows, mask, background in zip(
                images, rows[:, first : first + target.count], masks, backgrounds, strict=True
            )
        ]
        views[target.name] = normalise(torch.stack(batch), target)
        first += target.count
    return views


def render_view(
    image: np.ndarray,
    row: np.void,
    target: Target,
    mask: np.ndarray | None = None,
    background: np.ndarray | None = None,
) -> Tensor:
    """Render one view of one image, not normalised: float32 [3, size, size] in 0..1."""
    view = cut(image, row, target)
    view = paste(view, row, image.shape[:2], mask, background)
    if row["flip"]:
        view = view.flip(-1)
    view = torch.rot90(view, int(row["turns"]), (-2, -1))
    if row["grey"] == decisions.GREY_FIRST:
        view = grey(view)
    if row["order"] != decisions.NO_JITTER:
        view = jitter(view, row)
    if row["grey"] == decisions.GREY_LAST:
        view = grey(view)
    if row["sigma"] > 0:
        view = blur(view, float(row["sigma"]), int(row["radius"]))
    if row["solarise"]:
        view = solarise(view)
    return view.contiguous()


def normalise(views: Tensor, target: Target) -> Tensor:
    """(x - mean) / std per channel."""
    mean, std = torch.tensor(target.mean), torch.tensor(target.std)
    return (views - mean[:, None, None]) / std[:, None, None]


# ------------------------------------------------------------------------------------ geometry


def cut(image: np.ndarray, row: np.void, target: Target) -> Tensor:
    """Crop, resize to full_h x full_w, take the window at (win_y, win_x); black outside the box."""
    y, x, height, width = (int(row[f]) for f in ("box_y", "box_x", "box_h", "box_w"))
    box = torch.from_numpy(image[y : y + height, x : x + width].copy()).permute(2, 0, 1) / 255
    full_h, full_w = int(row["full_h"]), int(row["full_w"])
    weights_y = resize_weights(height, full_h, target.bicubic)
    weights_x = resize_weights(width, full_w, target.bicubic)
    top, bottom = _overlap(int(row["win_y"]), target.size, full_h)
    left, right = _overlap(int(row["win_x"]), target.size, full_w)
    visible = (weights_y[top:bottom] @ box @ weights_x[left:right].T).clamp(0, 1)

    view = torch.zeros(3, target.size, target.size)
    top, bottom = top - int(row["win_y"]), bottom - int(row["win_y"])
    left, right = left - int(row["win_x"]), right - int(row["win_x"])
    view[:, top:bottom, left:right] = visible
    return view


def resize_weights(old: int, new: int, bicubic: bool) -> Tensor:
    """Antialiased resize of a line from `old` to `new` pixels as a float32 matrix [new, old].

    With s = old / new, and output pixel i centred at c_i = (i + 1/2) s in the input,

        weight[i, j] = f((j + 1/2 - c_i) / max(s, 1)), each row divided by its sum,

    so that downscaling averages all covered pixels. Taps beyond the line's ends are dropped.
    """
    scale = old / new
    centre = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    pixel = torch.arange(old, dtype=torch.float64) + 0.5
    distance = ((pixel[None, :] - centre[:, None]) / max(scale, 1)).abs()
    weight = _cubic(distance) if bicubic else (1 - distance).clamp(min=0)
    return (weight / weight.sum(1, keepdim=True)).float()


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -1/2, for x >= 0."""
    a = -0.5
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _overlap(start: int, size: int, full: int) -> tuple[int, int]:
    """Intersection of start .. start + size with 0 .. full; never reversed, at most empty."""
    first = min(max(start, 0), full)
    return first, max(min(start + size, full), first)


# -------------------------------------------------------------------------------------- colour


def jitter(view: Tensor, row: np.void) -> Tensor:
    """Apply the four operations in the row's order; identity factors are skipped."""
    operations = {
        decisions.BRIGHTNESS: (brightness, float(row["brightness"]), 1.0),
        decisions.CONTRAST: (contrast, float(row["contrast"]), 1.0),
        decisions.SATURATION: (saturation, float(row["saturation"]), 1.0),
        decisions.HUE: (hue, float(row["hue"]), 0.0),
    }
    for digit in range(4):
        apply, factor, identity = operations[(int(row["order"]) >> 2 * digit) & 3]
        if factor != identity:
            view = apply(view, factor)
    return view


def luma(view: Tensor) -> Tensor:
    """0.299 red + 0.587 green + 0.114 blue: [1, height, width]."""
    return (torch.tensor(decisions.LUMA)[:, None, None] * view).sum(0, keepdim=True)


def grey(view: Tensor) -> Tensor:
    """Luma in all three channels."""
    return luma(view).expand_as(view)


def brightness(view: Tensor, factor: float) -> Tensor:
    """clamp(factor x)"""
    return (factor * view).clamp(0, 1)


def contrast(view: Tensor, factor: float) -> Tensor:
    """clamp(factor x + (1 - factor) m), where m is the mean luma of the whole view."""
    return (factor * view + (1 - factor) * luma(view).mean()).clamp(0, 1)


def saturation(view: Tensor, factor: float) -> Tensor:
    """clamp(factor x + (1 - factor) luma)"""
    return (factor * view + (1 - factor) * luma(view)).clamp(0, 1)


def hue(view: Tensor, shift: float) -> Tensor:
    """Rotate the HSV hue by `shift` turns, keeping saturation and value.

    With v = max, d = v - min of a pixel's channels, and S = d / v,

        h = (g - b) / d        where red is the largest,
            (b - r) / d + 2    else where green is,
            (r - g) / d + 4    else;       H = h / 6 + shift, modulo 1.

    Back: with n = (5, 3, 1) for red, green and blue and k = (n + 6 H) mod 6,
    channel = v - v S clamp(min(k, 4 - k), 0, 1). A grey pixel (d = 0) stays as it is.
    """
    red, green, blue = view
    value, least = view.amax(0), view.amin(0)
    span = value - least
    safe = torch.where(span > 0, span, 1.0)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixths = sixths + 6 * shift
    channels = []
    for n in (5, 3, 1):
        k = torch.remainder(n + sixths, 6)
        channels.append(value - span * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels)


def solarise(view: Tensor) -> Tensor:
    """1 - x where x >= 128/255, else x."""
    return torch.where(view >= decisions.SOLARISE_FROM, 1 - view, view)


# ---------------------------------------------------------------------------------------- blur


def blur(view: Tensor, sigma: float, radius: int) -> Tensor:
    """Separable Gaussian blur with `radius` taps on either side of each pixel.

    out[i] = sum over t of w_t x[reflect(i + t)],  w_t = exp(-t^2 / (2 sigma^2)), scaled to sum 1.
    """
    tap = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weight = torch.exp(-(tap**2) / (2 * sigma**2))
    weight = (weight / weight.sum()).float()
    for axis in (-2, -1):
        size = view.shape[axis]
        padded = view.index_select(axis, reflect(torch.arange(-radius, size + radius), size))
        view = sum(w * padded.narrow(axis, t, size) for t, w in enumerate(weight))
    return view


def reflect(index: Tensor, size: int) -> Tensor:
    """Reflect indices into 0..size-1 at the first and last pixel, as often as needed.

    ... 2 1 [0 1 2 3] 2 1 0 1 ...; a line of one pixel repeats it.
    """
    period = max(2 * (size - 1), 1)
    index = torch.remainder(index, period)
    return torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)
