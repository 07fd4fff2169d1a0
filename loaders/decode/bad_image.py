"""The error for bytes that cannot be decoded, and the limit on an image's size."""

from __future__ import annotations

MAX_PIXELS = 1 << 26  # of an image, unless a loader's max_pixels sets another limit
MOST_PIXELS = 178_956_970  # for max_pixels: PIL opens no larger image


class BadImage(Exception):
    """The bytes cannot be decoded as an image; the message says why."""


def check_pixel_count(height: int, width: int, max_pixels: int = MAX_PIXELS) -> None:
    """Raise BadImage for a decompression bomb."""
    if height * width > max_pixels:
        raise BadImage(
            f"{width} x {height} pixels are more than the {max_pixels} that max_pixels allows"
        )
