"""The table that tells a renderer what to do: one row per (image, view), all decisions made.

All fields are four bytes wide, so that a GPU reads the table as a plain int32 matrix. A view is a
window of a virtual resize: the box (source pixels) is resized to full_h x full_w, and the view is
the size x size window of the result whose corner is at (win_y, win_x). Parts of the window outside
the resized box are black. Then, in this order: copy-paste, flip, quarter turns, colour, blur,
solarise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROW = np.dtype(
    [
        ("box_y", "i4"),
        ("box_x", "i4"),
        ("box_h", "i4"),
        ("box_w", "i4"),
        ("full_h", "i4"),
        ("full_w", "i4"),
        ("win_y", "i4"),
        ("win_x", "i4"),
        ("flip", "i4"),  # mirrored left to right
        ("turns", "i4"),  # counter-clockwise quarter turns, after the flip
        ("order", "i4"),  # jitter: four base-4 digits, first operation lowest; NO_JITTER for none
        ("brightness", "f4"),
        ("contrast", "f4"),
        ("saturation", "f4"),
        ("hue", "f4"),  # turns
        ("grey", "i4"),  # GREY_NEVER, GREY_LAST (after the jitter) or GREY_FIRST
        ("sigma", "f4"),  # of the blur in output pixels; 0 for none
        ("radius", "i4"),  # taps of the blur on either side
        ("solarise", "i4"),
        ("fallback", "i4"),  # 1 where the crop law gave up drawing and used its fallback
        ("paste", "i4"),  # the background that the mask lets through: ON_GREY ...; PASTE_NEVER
        ("ground", "i4"),  # its grey level, 0 to 254, or the seed of its texture
        ("soft", "f4"),  # sigma of the mask's blur in source pixels; 0 for none
        (
            "ground_y",
            "f4",
        ),  # where the image lies on an image: share of the room there is, 0 to 0.5
        ("ground_x", "f4"),
    ]
)

NO_JITTER = -1
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0, 1, 2, 3
GREY_NEVER, GREY_LAST, GREY_FIRST = 0, 1, 2
PASTE_NEVER, ON_GREY, ON_TEXTURE, ON_IMAGE = 0, 1, 2, 3
LUMA = (0.299, 0.587, 0.114)
SOLARISE_FROM = 128 / 255


@dataclass(frozen=True)
class Target:
    """The tensor that one group of views fills: `count` consecutive rows of every image."""

    name: str
    count: int
    size: int
    bicubic: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
