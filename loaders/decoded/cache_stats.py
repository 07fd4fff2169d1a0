"""Figures of a loader's decoded cache, for `loader.stats()`."""

from __future__ import annotations

from dataclasses import dataclass

from patchmill.loaders.decoded.spec import size_text


@dataclass(frozen=True)
class CacheStats:
    """The decoded cache: what this loader had of it, and what it holds for all."""

    place: str  # "ram", "disk:FOLDER" or "device"
    hits: int  # images that this loader's workers took from it
    images: int
    samples: int  # of the data
    bytes: int  # handed out for pixels
    capacity: int
    full: bool  # an image did not fit

    def summary(self, bad: int) -> str | None:
        """A sentence on a cache that will hold no more images, `bad` of which cannot be read."""
        if self.images and self.images + bad >= self.samples:
            return f"the decoded cache holds all images, in {size_text(self.bytes)}"
        if not self.full:
            return None
        needed = ""
        if self.images:
            size = size_text(1.05 * self.bytes / self.images * self.samples)
            needed = f"; {size} would hold all: cache={self.place}:{size}"
        return f"the decoded cache holds {self.images / self.samples:.0%} of the images{needed}"

    def __str__(self) -> str:
        return (
            f"decoded cache: {self.hits:,} hits; {self.images:,} of {self.samples:,} images in "
            f"{size_text(self.bytes)} of {size_text(self.capacity)}{', full' * self.full}"
        )
