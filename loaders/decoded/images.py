"""`DecodedImages`: decoded images that lie in one memory map, with the place of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Place of a sample's image in `pixels`. All zero: not there. Where several threads may look, the
# height is written last, so that a place with a height is complete.
PLACE = np.dtype([("offset", "<i8"), ("height", "<i4"), ("width", "<i4")])


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """RGB images, [height, width, 3] one after another in `pixels`, and the place of each sample.

    `pixels` is mapped writable, and never written: Numba compiles a function once more for arrays
    that are read-only.
    """

    pixels: np.ndarray  # uint8, flat
    places: np.ndarray  # PLACE, one for each sample id

    def image(self, id: int) -> np.ndarray | None:
        """The image as uint8 [height, width, 3]; None where it is not there."""
        place = self.places[id]
        height, width = place["height"].item(), place["width"].item()
        if not height:
            return None
        start = place["offset"].item()
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)
