"""Decision rows: one ROW per (image, view) with every augmentation parameter already drawn.

All fields are four bytes wide, so that a GPU reads the table as an int32 matrix. A view is a window
of a virtual resize: the box (source pixels) is resized to full_h x full_w, and the view is the
size x size window of the result whose corner is at (win_y, win_x). Parts of the window outside the
resized box are black. Then, in this order: copy-paste, flip, quarter turns, colour, blur, solarise.
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
        ("flip", "i4"),  # horizontal
        ("turns", "i4"),  # counter-clockwise quarter turns, after the flip
        ("order", "i4"),  # jitter order: four base-4 digits, first operation lowest; or NO_JITTER
        ("brightness", "f4"),
        ("contrast", "f4"),
        ("saturation", "f4"),
        ("hue", "f4"),  # rotation in turns
        ("grey", "i4"),  # GREY_NEVER, GREY_LAST (after the jitter) or GREY_FIRST
        ("sigma", "f4"),  # blur sigma of the view in output pixels; 0 for none
        ("radius", "i4"),  # blur radius of the view: taps on either side
        ("solarise", "i4"),
        ("fallback", "i4"),  # 1 where rejection sampling of the crop gave up and used its fallback
        ("paste", "i4"),  # kind of background: PASTE_NEVER, ON_GREY, ON_TEXTURE or ON_IMAGE
        ("background", "i4"),  # the background's grey level, 0 to 254, or its texture's seed
        ("mask_sigma", "f4"),  # blur sigma of the mask in source pixels; 0 for none
        # Position of the image on a background image: fraction of the free margin, 0 to 0.5.
        ("background_y", "f4"),
        ("background_x", "f4"),
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
    """Output tensor of one view group: `count` consecutive rows of every image."""

    name: str
    count: int
    size: int
    bicubic: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
