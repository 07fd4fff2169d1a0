"""Read the samples of a source in seeded order and convert them, in threads for each step."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from patchmill.loaders.common.threads import map_ahead
from patchmill.loaders.copypaste import masks as source_masks
from patchmill.loaders.copypaste.mask_png import encode_mask
from patchmill.loaders.copypaste.masks import Masks
from patchmill.loaders.decode.decoder import BadImage
from patchmill.loaders.prepare import images
from patchmill.loaders.prepare.journal import BadSample, PreparedSample
from patchmill.loaders.prepare.options import BETON, Options
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.beton.writer import PAGE_SIZE
from patchmill.loaders.sources.folder import Folder

READERS = 8  # network storage serves many reads at a time, each with some latency
_CHUNK_SAMPLES, _CHUNK_BYTES = 8, 1 << 20  # size of a chunk between threads, whichever is less
_ORDER_BLOCK = 4096  # samples whose order is computed at a time


@dataclass(frozen=True)
class Conversion:
    """Samples to convert, and how."""

    source: Source
    masks: Masks | None
    options: Options
    workers: int


def converted_samples(
    work: Conversion, positions: range
) -> Generator[list[PreparedSample | BadSample], None, None]:
    """Yield the samples at these positions of the order, in chunks, bad ones included."""
    source, workers, prefix = work.source, work.workers, _path_prefix(work.source)

    def read(ids: list[int]) -> list[tuple[int, bytes | OSError]]:
        return [(id, images.read(source, id)) for id in ids]

    def convert(chunk: list[tuple[int, bytes | OSError]]) -> list[PreparedSample | BadSample]:
        return [_prepare_sample(work, prefix, id, data) for id, data in chunk]

    chunks = _id_chunks(source, work.options, positions)
    with (
        contextlib.closing(map_ahead(read, chunks, READERS, 2 * READERS)) as encoded,
        contextlib.closing(map_ahead(convert, encoded, workers, 2 * workers)) as samples,
    ):
        yield from samples


def _id_chunks(source: Source, options: Options, positions: range) -> Iterator[list[int]]:
    from patchmill.loaders.order.permutation import Order

    for start in range(positions.start, positions.stop, _ORDER_BLOCK):
        stop = min(start + _ORDER_BLOCK, positions.stop)
        if options.seed is None:
            block = list(range(start, stop))
        else:
            block = Order(len(source), options.seed).ids(0, start, stop).tolist()
        if start == positions.start:
            size = _chunk_size(source, block)
        yield from (block[i : i + size] for i in range(0, len(block), size))


def _chunk_size(source: Source, ids: list[int]) -> int:
    """Samples per chunk: fewer of large images, to bound the memory of chunks in flight."""
    first = (images.read(source, id) for id in ids[:_CHUNK_SAMPLES])
    sizes = [len(data) for data in first if isinstance(data, bytes)]
    mean = sum(sizes) // max(len(sizes), 1)
    return max(1, min(_CHUNK_SAMPLES, _CHUNK_BYTES // max(mean, 1)))


def _prepare_sample(
    work: Conversion, prefix: str, id: int, data: bytes | OSError
) -> PreparedSample | BadSample:
    source = work.source
    where = source.where(id)
    if isinstance(data, OSError):
        return BadSample(id, where, data.strerror or str(data))
    try:
        image = images.convert(data, work.options)
    except BadImage as error:
        return BadSample(id, where, str(error))
    label = None if source.labels is None else int(source.labels[id])
    checksum = zlib.crc32(image.data)
    path = where.removeprefix(prefix)
    mask, mask_state = _mask(work, id, image)
    return PreparedSample(id, label, image, checksum, len(data), path, mask, mask_state)


def _mask(work: Conversion, id: int, image: images.Image) -> tuple[bytes, str]:
    """The mask as a PNG, and its state; no bytes if training would not use it."""
    if work.masks is None:
        return b"", ""
    mask = work.masks.lookup(id)
    if mask.plane is None or mask.state != source_masks.USED:
        return b"", mask.state
    data = encode_mask(mask.plane)
    if work.options.format == BETON and len(image.data) + len(data) > PAGE_SIZE:
        return b"", source_masks.MISSING
    return data, mask.state


def source_folder(source: Source) -> str | None:
    """The folder of the source, which must not contain the output; None if it is not a folder."""
    if not isinstance(source, Folder):
        return None
    return os.path.realpath(os.path.expanduser(source.name))


def _path_prefix(source: Source) -> str:
    """The part of samples' paths that depends on where the source is stored."""
    folder = source_folder(source) or os.path.dirname(source.where(0))
    return f"{folder}/" if folder else ""
