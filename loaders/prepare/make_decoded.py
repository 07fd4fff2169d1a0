"""Fill a store of decoded images ahead of training: `patchmill prepare ... --format decoded`.

The store itself records what is done: images that it has are skipped, so the same command continues
after an interruption, and any number of processes can fill it concurrently.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.shortage import shortage
from patchmill.loaders.common.threads import map_ahead
from patchmill.loaders.decode.decoder import MAX_PIXELS, BadImage, decode
from patchmill.loaders.decoded import places
from patchmill.loaders.decoded.opening import open_store
from patchmill.loaders.decoded.spec import CacheSpec, parse_size, size_text
from patchmill.loaders.decoded.store import Store
from patchmill.loaders.prepare.journal import BadSample
from patchmill.loaders.prepare.options import check_max_pixels
from patchmill.loaders.sources import Source

_CHUNK = 16  # samples that a thread takes at a time
_SHOWN = 3  # bad samples in the summary
_DISK_SHARE = 0.9  # of the free space, unless a size is chosen


@dataclass
class DecodedResult:
    """Result of one run; `str` is the summary that the command prints."""

    spec: CacheSpec
    images: int  # in the store
    samples: int  # of the data
    bytes: int
    made: int  # kept in this run
    seconds: float
    full: bool
    bad: list[BadSample] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.images:,} of {self.samples:,} images, {size_text(self.bytes)}"]
        if self.made:
            lines.append(f"{self.made / max(self.seconds, 1e-9):,.0f} images/s")
        if self.bad:
            shown = "; ".join(f"{bad.where} ({bad.reason})" for bad in self.bad[:_SHOWN])
            more = ", ..." if len(self.bad) > _SHOWN else ""
            lines.append(f"skipped: {len(self.bad):,}: {shown}{more}")
        if self.full:
            lines.append("full: the other images are decoded during training, as without a cache")
        size = self.spec.capacity if self.full else int(1.05 * self.bytes)
        lines.append(f"for training: data.cache={self.spec.resized(size)}")
        return "\n".join(lines)


def make(
    source: Source,
    folder: Path,
    size: str | None,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    max_pixels: int = MAX_PIXELS,
) -> DecodedResult:
    """Decode this rank's share of the images into the store of `source` in `folder`."""
    check_max_pixels(max_pixels)
    wanted = CacheSpec("disk", 1, folder)
    if world_size > 1 and places.host_part(places.folder(wanted)):
        raise MillError(
            f"{folder} is on a network disk, where every machine keeps its own decoded images: "
            "prepare them on each machine, without --rank and --world-size"
        )
    available = int(places.free_bytes(places.folder(wanted)) * _DISK_SHARE)
    wanted = wanted.resized(available if size is None else parse_size(size, "--size"))
    store = open_store(wanted, source)
    assert store is not None
    began, ids = time.monotonic(), range(rank, len(source), world_size)
    chunks = (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
    made, bad = 0, list[BadSample]()
    with (
        track(f"decoding to {folder}", len(ids), 0, "images") as advance,
        contextlib.closing(
            map_ahead(
                lambda chunk: _fill(store, source, chunk, max_pixels), chunks, workers, 2 * workers
            )
        ) as done,
    ):
        for count, chunk, broken in done:
            made += count
            bad += broken
            advance(chunk)
            if store.full:
                break
    figures = store.stats(0)
    if bad and len(bad) == len(ids):
        raise MillError(
            f"none of the {len(bad):,} images can be decoded; the first is {bad[0].where}: "
            f"{bad[0].reason}"
        )
    return DecodedResult(
        wanted,
        figures.images,
        len(source),
        figures.bytes,
        made,
        time.monotonic() - began,
        figures.full,
        bad,
    )


def _fill(
    store: Store, source: Source, ids: range, max_pixels: int
) -> tuple[int, int, list[BadSample]]:
    """Decode images that the store lacks; return images kept, samples visited, and bad ones."""
    from patchmill.loaders.plan.draw import MAX_SIDE  # needs Numba

    made, bad = 0, []
    for id in ids:
        try:
            if store.full or store.image(id) is not None:
                continue
            data, stamp = store.read(id)
            image = decode(data, max_pixels=max_pixels)
            if (side := max(image.shape)) > MAX_SIDE:
                raise BadImage(f"a side of {side} pixels is too long")
        except (BadImage, OSError) as error:
            if shortage(error):  # not the sample's fault
                raise
            reason = getattr(error, "strerror", None) or str(error)
            bad.append(BadSample(id, source.where(id), reason))
            continue
        made += store.offer(id, image, stamp)
    return made, len(ids), bad
