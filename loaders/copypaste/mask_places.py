"""`MaskPlaces`: masks that lie as PNGs in one file, for compiled code that reads them itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

USABLE, ABSENT, DEGENERATE, ODD = range(4)  # ODD: not where it should be; Python finds out why

# 17 bytes a sample. `checksum` is the CRC-32 of the PNG, or 0 where none was stored.
PLACE = np.dtype([("start", "<u8"), ("size", "<u4"), ("checksum", "<u4"), ("kind", "u1")])


class MaskPlaces(NamedTuple):
    """The PNG of each sample's mask."""

    file: int  # open for reading
    places: np.ndarray  # PLACE [samples]


class Shares(NamedTuple):
    """Shares of foreground, float32 [samples]: `base` more than the share, or -1 for no mask.

    0 is not known yet: whoever computes it writes it there.
    """

    table: np.ndarray
    base: float
