"""Source to output: readers, then threads that check and re-encode, then one writer.

Samples arrive at the writer in the order that the seed gives them, so that neither the number of
threads nor their timing shows in a single byte. Each rank has a contiguous piece of that order.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import zlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from patchmill.loaders.common import files
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_ahead
from patchmill.loaders.copypaste import masks
from patchmill.loaders.copypaste.mask_png import encode_mask
from patchmill.loaders.copypaste.masks import Masks
from patchmill.loaders.decode.decoder import BadImage
from patchmill.loaders.prepare import (
    finish as closing,
)
from patchmill.loaders.prepare import (
    images,
    output_paths,
    write_beton,
    write_shards,
)
from patchmill.loaders.prepare.journal import Entry, Journal
from patchmill.loaders.prepare.options import BETON, Options, identity
from patchmill.loaders.prepare.output_paths import Place
from patchmill.loaders.prepare.tally import Bad, Ready, Tally, write_ledger
from patchmill.loaders.sources import Source, open_source, path_list
from patchmill.loaders.sources.beton.writer import PAGE_SIZE
from patchmill.loaders.sources.folder import Folder

log = logging.getLogger("patchmill")

READERS = 8  # a disk on the network answers many at a time, and each takes a while
_CHUNK, _CHUNK_BYTES = 8, 1 << 20  # samples are handed on together: so many, or about so much
_BLOCK = 4096  # samples whose order is computed at a time
_TOLERATED, _LEAST_TOLERATED = 10, 100  # more than 1 in 10 bad, and more than 100: stop

Read = tuple[int, bytes | OSError]


class Output(Protocol):
    """What the writer writes to; a stretch between two commits is what a crash can cost."""

    def restore(self, finished: Sequence[dict[str, Any]]) -> int: ...
    def has_room(self, sample: Ready) -> bool: ...
    def add(self, sample: Ready) -> None: ...
    def commit(self) -> dict[str, Any]: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Task:
    source: Source
    masks: Masks | None
    place: Place
    options: Options
    workers: int


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    place: Place
    tally: Tally  # of this rank, runs before included
    images: int  # in this run, bad ones included
    source_bytes: int  # in this run
    seconds: float
    waiting_for: list[int]  # ranks that are not done


def prepare(
    source: Source, out: Path, options: Options, workers: int, overwrite: bool = False
) -> Outcome | None:
    """Make the output, or what is left of it to make; None where it was complete already."""
    if overwrite and options.world_size > 1:
        raise MillError("--overwrite would remove what other ranks write: remove OUT yourself")
    place = output_paths.choose(out, options.format)
    found = masks.open_masks(source)
    known = identity(source, options, found.fingerprint if found else "")
    with files.writing(out):
        if output_paths.claim(place, _root(source), known, overwrite):
            return None
        journal = Journal(place.journal(options.rank), known)
        try:
            outcome = _prepare(Task(source, found, place, options, workers), journal)
        finally:
            journal.close()
        if not closing.close(place, source, found, known, options):
            outcome.waiting_for.extend(closing.unfinished(place, options.world_size))
        return outcome


def unfinished_ranks(source: Source, out: Path, options: Options) -> list[int] | None:
    """The ranks whose part is not complete; None where all is in place. Nothing is written."""
    place = output_paths.choose(out, options.format)
    found = masks.open_masks(source)
    known = identity(source, options, found.fingerprint if found else "")
    if output_paths.is_complete(place, _root(source), known):
        return None
    return closing.unfinished(place, options.world_size)


def open_any(data: str) -> Source:
    """Whatever a loader reads, and lists of paths."""
    if data.endswith(path_list.ENDINGS) and not os.path.isdir(data):
        return path_list.PathList(data)
    return open_source(data)


def _prepare(task: Task, journal: Journal) -> Outcome:
    place, (start, stop) = task.place, _piece(len(task.source), task.options)
    began = time.monotonic()
    if not journal.done and not _was_renamed(place, journal, stop):
        with contextlib.closing(_output(task, stop - start)) as output:
            journal.keep(output.restore([entry.output for entry in journal.entries]))
            first = journal.entries[-1].stop if journal.entries else start
            before = closing.sum_up(journal.entries)
            _write(task, journal, output, range(first, stop))
            output.finish()
    else:
        first, before = stop, closing.sum_up(journal.entries)
    journal.finish()
    tally = closing.sum_up(journal.entries)
    return Outcome(
        place,
        tally,
        stop - first,
        tally.source_bytes - before.source_bytes,
        time.monotonic() - began,
        [],
    )


def _write(task: Task, journal: Journal, output: Output, positions: range) -> None:
    place, options = task.place, task.options
    total = closing.sum_up(journal.entries)
    tally, begun, position = Tally(), positions.start, positions.start

    def commit() -> None:
        nonlocal tally, begun
        journal.append(Entry(position, tally, output.commit()))
        total.add(tally)
        if tally.bad:
            write_ledger(place.bad_of(options), total.bad, options.rank)
        tally, begun = Tally(), position

    count = _piece(len(task.source), options)
    done = positions.start - count[0]
    with (
        contextlib.closing(_samples(task, positions)) as samples,
        track(f"preparing {place.out}", count[1] - count[0], done, "images") as advance,
    ):
        for chunk in samples:
            for sample in chunk:
                if isinstance(sample, Bad):
                    tally.bad.append(sample)
                    _check_limit(place.bad_of(options), total, tally, options.rank)
                else:
                    if not output.has_room(sample):
                        commit()
                    output.add(sample)
                    tally.count(sample)
                position += 1
            advance(len(chunk))
        if position > begun:
            commit()


def _samples(task: Task, positions: range) -> Generator[list[Ready | Bad], None, None]:
    source, workers, root = task.source, task.workers, _base(task.source)

    def read(ids: list[int]) -> list[Read]:
        return [(id, _bytes_or_error(source, id)) for id in ids]

    def ready(found: list[Read]) -> list[Ready | Bad]:
        return [_ready(task, root, id, data) for id, data in found]

    with (
        contextlib.closing(
            map_ahead(read, _ids(source, task.options, positions), READERS, 2 * READERS)
        ) as encoded,
        contextlib.closing(map_ahead(ready, encoded, workers, 2 * workers)) as samples,
    ):
        yield from samples


def _ids(source: Source, options: Options, positions: range) -> Iterator[list[int]]:
    from patchmill.loaders.order.permutation import Order

    for start in range(positions.start, positions.stop, _BLOCK):
        stop = min(start + _BLOCK, positions.stop)
        if options.seed is None:
            block = list(range(start, stop))
        else:
            block = Order(len(source), options.seed).ids(0, start, stop).tolist()
        if start == positions.start:
            together = _together(source, block)
        yield from (block[i : i + together] for i in range(0, len(block), together))


def _together(source: Source, ids: list[int]) -> int:
    """Few of large images, so that what is under way stays small: `_CHUNK` or less."""
    found = (_bytes_or_error(source, id) for id in ids[:_CHUNK])
    sizes = [len(data) for data in found if isinstance(data, bytes)]
    mean = sum(sizes) // max(len(sizes), 1)
    return max(1, min(_CHUNK, _CHUNK_BYTES // max(mean, 1)))


def _bytes_or_error(source: Source, id: int) -> bytes | OSError:
    try:
        return source.read(id)
    except OSError as error:
        return error


def _ready(task: Task, root: str, id: int, data: bytes | OSError) -> Ready | Bad:
    source = task.source
    where = source.where(id)
    if isinstance(data, OSError):
        return Bad(id, where, data.strerror or str(data))
    try:
        image = images.prepare(data, task.options)
    except BadImage as error:
        return Bad(id, where, str(error))
    label = None if source.labels is None else int(source.labels[id])
    checksum = zlib.crc32(image.data)
    path = where.removeprefix(root)
    return Ready(id, label, image, checksum, len(data), path, *_mask(task, id, image))


def _mask(task: Task, id: int, image: images.Image) -> tuple[bytes, str]:
    """As a PNG, and its state; no bytes where there is none that training would use."""
    if task.masks is None:
        return b"", ""
    found = task.masks.lookup(id)
    if found.plane is None or found.state != masks.USED:
        return b"", found.state
    data = encode_mask(found.plane)
    if task.options.format == BETON and len(image.data) + len(data) > PAGE_SIZE:
        return b"", masks.MISSING
    return data, found.state


def _output(task: Task, most: int) -> Output:
    place, options, classes = task.place, task.options, task.source.classes
    if options.format == BETON:
        masked = task.masks is not None
        return write_beton.BetonOutput(place.out, most, options.shard_size, classes, masked)
    prefix = "data" if options.world_size == 1 else f"data-{options.rank:04d}"
    return write_shards.ShardOutput(place.out, prefix, options.shard_size, classes)


def _was_renamed(place: Place, journal: Journal, stop: int) -> bool:
    """A .beton that got its name just before the run was killed."""
    complete = bool(journal.entries) and journal.entries[-1].stop == stop
    return place.format == BETON and complete and place.out.exists()


def _piece(count: int, options: Options) -> tuple[int, int]:
    """This rank's positions of the order."""
    rank, world_size = options.rank, options.world_size
    return count * rank // world_size, count * (rank + 1) // world_size


def _check_limit(ledger: Path, total: Tally, tally: Tally, rank: int) -> None:
    bad = len(total.bad) + len(tally.bad)
    seen = total.samples + tally.samples + bad
    if bad > max(_LEAST_TOLERATED, seen // _TOLERATED):
        write_ledger(ledger, [*total.bad, *tally.bad], rank)
        last = tally.bad[-1]
        raise MillError(
            f"{bad} of the first {seen} images cannot be used, the latest {last.where} "
            f"({last.reason}): see {ledger}, and mend the source"
        )


def _root(source: Source) -> str | None:
    """The folder that the output must not lie in."""
    if not isinstance(source, Folder):
        return None
    return os.path.realpath(os.path.expanduser(source.name))


def _base(source: Source) -> str:
    """What is cut from the front of samples' places, so that where data lies does not show."""
    root = _root(source) or os.path.dirname(source.where(0))
    return f"{root}/" if root else ""
