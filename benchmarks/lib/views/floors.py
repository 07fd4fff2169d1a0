"""What no renderer of views can do without: bytes to move and operations to do, by stage.

Counted from the rows alone, for the arithmetic that the definition asks for: separable filters over
no more taps than they have, in whichever order takes fewer; colour operations as they are written
down; each byte moved once. Of a picture that is what any of its views shows, however many do.
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

# Arithmetic operations for a pixel, comparisons and roundings not counted.
COLOUR = {BRIGHTNESS: 3, CONTRAST: 6, SATURATION: 12, HUE: 25}
GREY, NORMALISE, LUMA = 5, 6, 5
PLANES = 6  # bytes a pixel that lie between two passes


@dataclass
class Floor:
    """Of one stage, for a whole batch."""

    bytes: float = 0.0
    filter: float = 0.0  # multiply-adds that tensor cores can do
    other: float = 0.0  # operations

    def seconds(self, bandwidth: float, filter_rate: float, other_rate: float) -> float:
        """The larger of the two floors, at rates per second."""
        return max(self.memory(bandwidth), self.arithmetic(filter_rate, other_rate))

    def memory(self, bandwidth: float) -> float:
        return self.bytes / bandwidth

    def arithmetic(self, filter_rate: float, other_rate: float) -> float:
        return max(self.filter / filter_rate, self.other / other_rate)


def floors(
    rows: np.ndarray, shapes: np.ndarray, targets: Sequence[Target], number_bytes: int, tile: int
) -> dict[str, Floor]:
    """For resize, contrast and blur; a view of at most `tile` pixels a side knows its own mean.

    `rows` is [N, views], `shapes` [N, 2]; the batch's numbers are of `number_bytes` each.
    """
    resize, contrast, blur = Floor(), Floor(), Floor()
    resize.bytes += 3 * _shown(rows, shapes, targets)
    first = 0
    for target in targets:
        own = rows[:, first : first + target.count]
        first += target.count
        area, final = target.size**2, 3 * target.size**2 * number_bytes
        waits = (own["order"] != NO_JITTER) & (own["contrast"] != 1) & (target.size > tile)
        blurred = own["sigma"] > 0

        resize.bytes += np.where(waits | blurred, PLANES * area, final).sum()
        resize.filter += (3 * area * _resize_taps(own, target.bicubic)).sum()
        before, after = _colour(own)
        resize.other += area * np.where(waits, before + LUMA, before + after).sum()
        resize.other += NORMALISE * area * (~waits & ~blurred).sum()

        contrast.bytes += (PLANES * area + np.where(blurred, PLANES * area, final))[waits].sum()
        contrast.other += area * after[waits].sum() + NORMALISE * area * (waits & ~blurred).sum()

        blur.bytes += (PLANES * area + final) * blurred.sum()
        blur.filter += (3 * area * 2 * (2 * own["radius"] + 1))[blurred].sum()
        blur.other += NORMALISE * area * blurred.sum()
    return {"resize": resize, "contrast": contrast, "blur": blur}


def total(parts: Iterable[Floor]) -> Floor:
    """Of stages that run one after the other."""
    whole = Floor()
    for part in parts:
        whole.bytes += part.bytes
        whole.filter += part.filter
        whole.other += part.other
    return whole


def _shown(rows: np.ndarray, shapes: np.ndarray, targets: Sequence[Target]) -> int:
    """Pixels of all pictures that are in any view."""
    sizes = np.repeat([target.size for target in targets], [target.count for target in targets])
    top, bottom = _span(rows["box_y"], rows["box_h"], rows["full_h"], rows["win_y"], sizes)
    left, right = _span(rows["box_x"], rows["box_w"], rows["full_w"], rows["win_x"], sizes)
    pixels = 0
    for image, (height, width) in enumerate(shapes):
        seen = np.zeros((height, width), bool)
        for view in range(rows.shape[1]):
            here = image, view
            seen[top[here] : bottom[here], left[here] : right[here]] = True
        pixels += int(seen.sum())
    return pixels


def _span(
    box: np.ndarray, length: np.ndarray, full: np.ndarray, window: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First pixel, and the one behind the last, that the window shows on one axis."""
    length = length.astype(np.int64)  # products of two sides may not fit into 32 bits
    first, last = np.clip(window, 0, full), np.clip(window + size, 0, full)
    return box + first * length // full, box - (-last * length // full)


def _resize_taps(rows: np.ndarray, bicubic: bool) -> np.ndarray:
    """Multiply-adds for each value: the first filter makes as many lines as the second reads."""
    reach = 4 if bicubic else 2
    scale_y, scale_x = rows["box_h"] / rows["full_h"], rows["box_w"] / rows["full_w"]
    down, across = reach * np.maximum(scale_y, 1), reach * np.maximum(scale_x, 1)
    return np.minimum(down * scale_x + across, across * scale_y + down)


def _colour(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Operations a pixel before the contrast (or all, if there is none), and from there on."""
    before, after = np.zeros(rows.shape), np.zeros(rows.shape)
    factors = {
        BRIGHTNESS: rows["brightness"] != 1,
        CONTRAST: rows["contrast"] != 1,
        SATURATION: rows["saturation"] != 1,
        HUE: rows["hue"] != 0,
    }
    reached = np.zeros(rows.shape, bool)
    for place in range(4):
        operation = (rows["order"] >> (2 * place)) & 3
        for which, present in factors.items():
            here = (rows["order"] != NO_JITTER) & (operation == which) & present
            if which == CONTRAST:
                reached |= here
            cost = np.where(here, COLOUR[which], 0)
            before += np.where(reached, 0, cost)
            after += np.where(reached, cost, 0)
    before += np.where(rows["grey"] == GREY_FIRST, GREY, 0)
    last = (rows["grey"] != GREY_NEVER) & (rows["grey"] != GREY_FIRST)
    after += np.where(last, GREY, 0)
    return before, after
