"""`DecodedImages`: decoded images in one memory map, with the place of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Place of a sample's image in `pixels`, all zero if it is missing. The height is written last, so
# that a place with a height is complete even while other threads write.
PLACE = np.dtype([("offset", "<i8"), ("height", "<i4"), ("width", "<i4")])


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """RGB images [height, width, 3], concatenated in `pixels`, and the place of each sample.

    `pixels` is mapped writable but never written: Numba would compile functions a second time for
    read-only arrays.
    """

    pixels: np.ndarray  # uint8, flat
    places: np.ndarray  # PLACE, one per sample id

    def image(self, id: int) -> np.ndarray | None:
        """The image as uint8 [height, width, 3]; None if it is missing."""
        place = self.places[id]
        height, width = place["height"].item(), place["width"].item()
        if not height:
            return None
        start = place["offset"].item()
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)
