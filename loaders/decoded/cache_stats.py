"""Statistics of a loader's decoded cache, for `loader.stats()`."""

from __future__ import annotations

from dataclasses import dataclass

from patchmill.loaders.decoded.spec import size_text


@dataclass(frozen=True)
class CacheStats:
    """Statistics of the decoded cache: this loader's hits, and its content for all loaders."""

    place: str  # "ram", "disk:FOLDER" or "device"
    hits: int  # images that this loader's workers read from it
    images: int
    samples: int  # of the data
    bytes: int  # allocated for pixels
    capacity: int
    full: bool  # an image did not fit

    def summary(self, bad: int) -> str | None:
        """One sentence if the cache will not gain images; `bad` of them cannot be read."""
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
