"""Figures of a loader's decoded cache, for `loader.stats()`."""

from __future__ import annotations

from dataclasses import dataclass

from patchmill.loaders.decoded.spec import size_text


@dataclass(frozen=True)
class CacheStats:
    """The decoded cache: what this loader had of it, and what it holds for all."""

    hits: int  # images that this loader's workers took from it
    images: int
    samples: int  # of the data
    bytes: int  # handed out for pixels
    capacity: int
    full: bool  # an image did not fit

    def __str__(self) -> str:
        return (
            f"decoded cache: {self.hits:,} hits; {self.images:,} of {self.samples:,} images in "
            f"{size_text(self.bytes)} of {size_text(self.capacity)}{', full' * self.full}"
        )
