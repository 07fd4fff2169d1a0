"""The error for bytes that cannot be decoded, and the limit on an image's size."""

from __future__ import annotations

MAX_PIXELS = 178_956_970  # PIL's limit too: a larger image is an attack or an accident


class BadImage(Exception):
    """The bytes are not an image that can be decoded; the message says why."""


def check_pixel_count(height: int, width: int) -> None:
    """Raise BadImage for a decompression bomb."""
    if height * width > MAX_PIXELS:
        raise BadImage(f"{width} x {height} pixels are more than the {MAX_PIXELS} that are allowed")
