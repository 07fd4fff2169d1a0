"""Make shards or a .beton from a source, with reader threads, converter threads and one writer.

Samples reach the writer in seeded order, so neither the number of threads nor their timing changes
a byte of the output. Each rank has a contiguous share of that order.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.copypaste import masks as source_masks
from patchmill.loaders.files import writing
from patchmill.loaders.prepare import output, write_beton, write_shards
from patchmill.loaders.prepare.convert_samples import Conversion, converted_samples, source_folder
from patchmill.loaders.prepare.journal import (
    BadSample,
    Journal,
    PreparedSample,
    Segment,
    Tally,
    total,
    write_bad_list,
)
from patchmill.loaders.prepare.options import BETON, Options, identity_of
from patchmill.loaders.prepare.output import OutputPaths
from patchmill.loaders.prepare.report import format_bytes, format_counts, format_ranks
from patchmill.loaders.sources import Source

# Stop if more than 1 in 10 samples are bad, and more than 100.
_BAD_RATIO, _BAD_MINIMUM = 10, 100


class Writer(Protocol):
    """Writes segments; a crash costs at most the samples added since the last commit."""

    def restore(self, segments: Sequence[dict[str, Any]]) -> int: ...
    def has_room(self, sample: PreparedSample) -> bool: ...
    def add(self, sample: PreparedSample) -> None: ...
    def commit(self) -> dict[str, Any]: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class DataResult:
    """Result of one run; `str` is the summary that the command prints."""

    paths: OutputPaths
    tally: Tally  # of this rank, earlier runs included
    images: int  # in this run, bad ones included
    source_bytes: int  # in this run
    seconds: float
    unfinished_ranks: list[int]

    def __str__(self) -> str:
        tally = self.tally
        lines = [
            f"{tally.samples:,} images, {format_bytes(tally.source_bytes)} in the source, "
            f"{format_bytes(tally.bytes)} here",
            *(f"  {count:,} {change}" for change, count in sorted(tally.changes.items())),
        ]
        if tally.masks:
            lines.append(f"masks: {format_counts(tally.masks)}")
        if tally.traits:
            lines.append(f"unusual: {format_counts(tally.traits)}")
        if tally.bad:
            lines.append(f"skipped: {len(tally.bad):,}, listed in {self.paths.bad_list}")
        if self.images:
            per_second = self.images / max(self.seconds, 1e-9)
            megabytes = self.source_bytes / max(self.seconds, 1e-9) / 1e6
            lines.append(f"{per_second:,.0f} images/s, {megabytes:,.0f} MB/s")
        if self.unfinished_ranks:
            ranks = format_ranks(self.unfinished_ranks)
            lines.append(f"this rank is done; the data set is complete after ranks {ranks}")
        else:
            lines.append(f"complete: {self.paths.out}")
        return "\n".join(lines)


def make(
    source: Source, out: Path, options: Options, workers: int, overwrite: bool = False
) -> DataResult | None:
    """Make this rank's share of the output, or the rest of it; None if all is complete already."""
    if overwrite and options.world_size > 1:
        raise MillError("--overwrite would remove what other ranks write: remove OUT yourself")
    paths = output.choose_paths(out, options.format)
    masks = source_masks.open_masks(source)
    identity = identity_of(source, options, masks.fingerprint if masks else "")
    with writing.output_errors(out):
        if output.claim(paths, source_folder(source), identity, overwrite):
            return None
        journal = Journal(paths.journal(options.rank), identity)
        try:
            result = _make_share(Conversion(source, masks, options, workers), paths, journal)
        finally:
            journal.close()
        if not output.complete(paths, source, masks, identity, options):
            result.unfinished_ranks.extend(output.unfinished_ranks(paths, options.world_size))
        return result


def unfinished_ranks(source: Source, out: Path, options: Options) -> list[int] | None:
    """Ranks whose shares are not complete; None if the whole output is. Writes nothing."""
    paths = output.choose_paths(out, options.format)
    masks = source_masks.open_masks(source)
    identity = identity_of(source, options, masks.fingerprint if masks else "")
    if output.is_complete(paths, source_folder(source), identity):
        return None
    return output.unfinished_ranks(paths, options.world_size)


def _make_share(work: Conversion, paths: OutputPaths, journal: Journal) -> DataResult:
    start, stop = _share(len(work.source), work.options)
    began = time.monotonic()
    if not _beton_is_written(paths, journal, stop):
        with contextlib.closing(_open_writer(work, paths, stop - start)) as writer:
            journal.truncate(writer.restore([segment.output for segment in journal.segments]))
            first = journal.segments[-1].stop if journal.segments else start
            before = total(journal.segments)
            _write(work, paths, journal, writer, range(first, stop))
            writer.finish()
    else:
        first, before = stop, total(journal.segments)
    journal.mark_done()
    tally = total(journal.segments)
    return DataResult(
        paths,
        tally,
        stop - first,
        tally.source_bytes - before.source_bytes,
        time.monotonic() - began,
        [],
    )


def _write(
    work: Conversion, paths: OutputPaths, journal: Journal, writer: Writer, positions: range
) -> None:
    options = work.options
    so_far = total(journal.segments)
    tally, segment_start, position = Tally(), positions.start, positions.start

    def commit() -> None:
        nonlocal tally, segment_start
        written = writer.commit()
        so_far.add(tally)
        if tally.bad:  # before the journal: a resumed run does not list this segment's again
            write_bad_list(paths.bad_list_of(options), so_far.bad)
        journal.append(Segment(position, tally, written))
        tally, segment_start = Tally(), position

    start, stop = _share(len(work.source), options)
    done = positions.start - start
    with (
        contextlib.closing(converted_samples(work, positions)) as samples,
        track(f"preparing {paths.out}", stop - start, done, "images") as advance,
    ):
        for chunk in samples:
            for sample in chunk:
                if isinstance(sample, BadSample):
                    tally.bad.append(sample)
                    _check_bad_ratio(paths.bad_list_of(options), so_far, tally)
                else:
                    if not writer.has_room(sample):
                        commit()
                    writer.add(sample)
                    tally.count(sample)
                position += 1
            advance(len(chunk))
        if position > segment_start:
            commit()


def _open_writer(work: Conversion, paths: OutputPaths, most: int) -> Writer:
    """A writer for at most `most` samples."""
    options, classes = work.options, work.source.classes
    if options.format == BETON:
        has_masks = work.masks is not None
        return write_beton.BetonOutput(paths.out, most, options.shard_size, classes, has_masks)
    prefix = "data" if options.world_size == 1 else f"data-{options.rank:04d}"
    return write_shards.ShardOutput(paths.out, prefix, options.shard_size, classes)


def _beton_is_written(paths: OutputPaths, journal: Journal, stop: int) -> bool:
    """True if an earlier run has renamed its .beton, even if it did not mark its journal."""
    all_written = bool(journal.segments) and journal.segments[-1].stop == stop
    return paths.format == BETON and all_written and paths.out.exists()


def _share(count: int, options: Options) -> tuple[int, int]:
    """Start and stop of this rank's positions in the order."""
    rank, world_size = options.rank, options.world_size
    return count * rank // world_size, count * (rank + 1) // world_size


def _check_bad_ratio(bad_list: Path, so_far: Tally, tally: Tally) -> None:
    bad = len(so_far.bad) + len(tally.bad)
    seen = so_far.samples + tally.samples + bad
    if bad > max(_BAD_MINIMUM, seen // _BAD_RATIO):
        write_bad_list(bad_list, [*so_far.bad, *tally.bad])
        last = tally.bad[-1]
        raise MillError(
            f"{bad} of the first {seen} images cannot be used, the latest is {last.where} "
            f"({last.reason}): see {bad_list}, and repair the source"
        )
