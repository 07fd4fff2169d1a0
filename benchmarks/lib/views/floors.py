"""Roofline floors of rendering views: bytes moved and operations computed, by stage.

Counted from the decision rows, for the arithmetic of the definition: separable filters over exactly
their taps, in the cheaper order; colour operations as written; each byte moved once. Only the
pixels of an image that some view shows are read, each of them once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from patchmill.kernels.views.decisions import (
    BRIGHTNESS,
    CONTRAST,
    GREY_FIRST,
    GREY_NEVER,
    HUE,
    NO_JITTER,
    SATURATION,
    Target,
)

# Arithmetic operations per pixel, without comparisons and rounding.
COLOUR = {BRIGHTNESS: 3, CONTRAST: 6, SATURATION: 12, HUE: 25}
GREY, NORMALISE, LUMA = 5, 6, 5
PLANES = 6  # bytes per pixel of the int16 planes between two passes


@dataclass
class StageFloor:
    """Minimum bytes and operations of one stage for a batch."""

    bytes: float = 0.0
    filter: float = 0.0  # multiply-adds that tensor cores can compute
    other: float = 0.0  # other operations

    def seconds(self, bandwidth: float, filter_rate: float, other_rate: float) -> float:
        """Roofline time at these bytes and operations per second."""
        return max(self.memory(bandwidth), self.arithmetic(filter_rate, other_rate))

    def memory(self, bandwidth: float) -> float:
        return self.bytes / bandwidth

    def arithmetic(self, filter_rate: float, other_rate: float) -> float:
        return max(self.filter / filter_rate, self.other / other_rate)


def floors(
    rows: np.ndarray, shapes: np.ndarray, targets: Sequence[Target], number_bytes: int, tile: int
) -> dict[str, StageFloor]:
    """Floors of the resize, contrast and blur passes.

    Views of at most `tile` pixels a side need no contrast pass: one program computes their mean.
    `rows` is [N, views], `shapes` is [N, 2]; the output's elements have `number_bytes` each.
    """
    resize, contrast, blur = StageFloor(), StageFloor(), StageFloor()
    resize.bytes += 3 * visible_pixels(rows, shapes, targets)
    first = 0
    for target in targets:
        group = rows[:, first : first + target.count]
        first += target.count
        area, final = target.size**2, 3 * target.size**2 * number_bytes
        # Views larger than a tile compute the mean for their contrast in a separate pass.
        own_pass = (group["order"] != NO_JITTER) & (group["contrast"] != 1) & (target.size > tile)
        blurred = group["sigma"] > 0

        resize.bytes += np.where(own_pass | blurred, PLANES * area, final).sum()
        resize.filter += (3 * area * _resize_taps(group, target.bicubic)).sum()
        before, after = _colour_operations(group)
        resize.other += area * np.where(own_pass, before + LUMA, before + after).sum()
        resize.other += NORMALISE * area * (~own_pass & ~blurred).sum()

        contrast.bytes += (PLANES * area + np.where(blurred, PLANES * area, final))[own_pass].sum()
        contrast.other += (
            area * after[own_pass].sum() + NORMALISE * area * (own_pass & ~blurred).sum()
        )

        blur.bytes += (PLANES * area + final) * blurred.sum()
        blur.filter += (3 * area * 2 * (2 * group["radius"] + 1))[blurred].sum()
        blur.other += NORMALISE * area * blurred.sum()
    return {"resize": resize, "contrast": contrast, "blur": blur}


def total(parts: Iterable[StageFloor]) -> StageFloor:
    """Sum over stages that run one after another."""
    combined = StageFloor()
    for part in parts:
        combined.bytes += part.bytes
        combined.filter += part.filter
        combined.other += part.other
    return combined


def visible_pixels(rows: np.ndarray, shapes: np.ndarray, targets: Sequence[Target]) -> int:
    """Pixels of all images that at least one view shows."""
    sizes = np.repeat([target.size for target in targets], [target.count for target in targets])
    top, bottom = _visible_range(rows["box_y"], rows["box_h"], rows["full_h"], rows["win_y"], sizes)
    left, right = _visible_range(rows["box_x"], rows["box_w"], rows["full_w"], rows["win_x"], sizes)
    pixels = 0
    for image, (height, width) in enumerate(shapes):
        visible = np.zeros((height, width), bool)
        for view in range(rows.shape[1]):
            at = image, view
            visible[top[at] : bottom[at], left[at] : right[at]] = True
        pixels += int(visible.sum())
    return pixels


def _visible_range(
    box: np.ndarray, length: np.ndarray, full: np.ndarray, window: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of the source pixels that the window shows, on one axis."""
    length = length.astype(np.int64)  # products of two sides may not fit into 32 bits
    first, last = np.clip(window, 0, full), np.clip(window + size, 0, full)
    return box + first * length // full, box - (-last * length // full)


def _resize_taps(rows: np.ndarray, bicubic: bool) -> np.ndarray:
    """Multiply-adds per output value: the first filter makes only lines that the second reads."""
    reach = 4 if bicubic else 2
    scale_y, scale_x = rows["box_h"] / rows["full_h"], rows["box_w"] / rows["full_w"]
    down, across = reach * np.maximum(scale_y, 1), reach * np.maximum(scale_x, 1)
    return np.minimum(down * scale_x + across, across * scale_y + down)


def _colour_operations(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Operations per pixel before the contrast (all, if there is none), and from it on."""
    before, after = np.zeros(rows.shape), np.zeros(rows.shape)
    factors = {
        BRIGHTNESS: rows["brightness"] != 1,
        CONTRAST: rows["contrast"] != 1,
        SATURATION: rows["saturation"] != 1,
        HUE: rows["hue"] != 0,
    }
    reached = np.zeros(rows.shape, bool)  # the contrast
    for position in range(4):
        operation = (rows["order"] >> (2 * position)) & 3
        for which, present in factors.items():
            applies = (rows["order"] != NO_JITTER) & (operation == which) & present
            if which == CONTRAST:
                reached |= applies
            cost = np.where(applies, COLOUR[which], 0)
            before += np.where(reached, 0, cost)
            after += np.where(reached, cost, 0)
    before += np.where(rows["grey"] == GREY_FIRST, GREY, 0)
    grey_last = (rows["grey"] != GREY_NEVER) & (rows["grey"] != GREY_FIRST)
    after += np.where(grey_last, GREY, 0)
    return before, after
