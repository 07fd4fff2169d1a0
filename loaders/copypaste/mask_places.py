"""`MaskPlaces`: masks stored as PNGs in one file, for compiled code that reads them itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

USABLE, ABSENT, DEGENERATE, ODD = range(4)  # ODD: not found as expected; Python finds out why

# 17 bytes per sample. `checksum` is the CRC-32 of the PNG, or 0 if none was stored.
PLACE = np.dtype([("start", "<u8"), ("size", "<u4"), ("checksum", "<u4"), ("kind", "u1")])


class MaskPlaces(NamedTuple):
    """The PNG of each sample's mask."""

    file: int  # open for reading
    places: np.ndarray  # PLACE [samples]


class Shares(NamedTuple):
    """Shares of foreground, float32 [samples]: `base` plus the share, or -1 without a mask.

    0 means not computed yet; the code that computes a share stores it.
    """

    table: np.ndarray
    base: float
