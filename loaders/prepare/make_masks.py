"""Make a mask of every image of a source, in one file next to it.

Threads make them in sample order, into one log per rank. When all ranks' logs are done, they are
merged into the file, whose bytes therefore do not depend on the number of threads or ranks, nor on
interruptions. `copypaste/mask_file.py` describes the format.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_ahead
from patchmill.loaders.copypaste import mask_file
from patchmill.loaders.copypaste.mask_file import MaskFile, MaskRow
from patchmill.loaders.decode.decoder import BadImage
from patchmill.loaders.files import writing
from patchmill.loaders.prepare import images, mask_output
from patchmill.loaders.prepare.mask_log import MaskLog
from patchmill.loaders.prepare.options import MaskOptions
from patchmill.loaders.prepare.report import format_ranks, mask_file_lines
from patchmill.loaders.saliency import Estimator, estimator
from patchmill.loaders.sources import Source

log = logging.getLogger("patchmill")

_READERS = 8  # network storage serves many reads at a time, each with some latency
_TIMED_IMAGES = 3  # per thread, to estimate the total time
# Stop if more than 1 in 10 images cannot be read, and more than 100.
_BAD_RATIO, _BAD_MINIMUM = 10, 100


@dataclass(frozen=True)
class MasksResult:
    """Result of one run; `str` is the summary that the command prints."""

    out: Path
    images: int  # in this run
    seconds: float
    unfinished_ranks: list[int]

    def __str__(self) -> str:
        lines = []
        if self.images:
            per_second = self.images / max(self.seconds, 1e-9)
            lines.append(f"{self.images:,} images, {per_second:,.0f} images/s")
        if self.unfinished_ranks:
            ranks = format_ranks(self.unfinished_ranks)
            lines.append(f"this rank is done; the file will be made after ranks {ranks}")
        elif self.out.exists():
            lines += [*mask_file_lines(MaskFile(self.out)), f"complete: {self.out}"]
        return "\n".join(lines)


def make(
    source: Source, out: Path, options: MaskOptions, workers: int, overwrite: bool = False
) -> MasksResult | None:
    """Make this rank's share of the masks, or the rest of it; None if all is complete already."""
    if overwrite and options.world_size > 1:
        raise MillError(f"--overwrite would remove what other ranks write: remove {out} yourself")
    estimate = estimator(options.method)
    identity = mask_output.identity_of(source, options, estimate)
    with writing.output_errors(out):
        mask_output.check_folder(out)
        if mask_output.claim(out, identity, overwrite):
            return None
        began = time.monotonic()
        rank_log = MaskLog(mask_output.log_path(out, options.rank), identity)
        before = rank_log.count
        try:
            _write_share(source, estimate, options, workers, rank_log)
        finally:
            rank_log.close()
        unfinished = mask_output.merge_logs(source, estimate, out, options)
        return MasksResult(out, rank_log.count - before, time.monotonic() - began, unfinished)


def unfinished_ranks(source: Source, out: Path, options: MaskOptions) -> list[int] | None:
    """Ranks whose shares are not complete; None if the file is. Writes nothing."""
    mask_output.check_folder(out)
    identity = mask_output.identity_of(source, options, estimator(options.method))
    if mask_output.is_complete(out, identity):
        return None
    return mask_output.unfinished_ranks(out, len(source), options)


def _write_share(
    source: Source, estimate: Estimator, options: MaskOptions, workers: int, rank_log: MaskLog
) -> None:
    share = options.share(len(source))
    rest = share[rank_log.count :]
    if rest:
        _log_estimated_time(source, estimate, options, workers, rest)
    with (
        contextlib.closing(_rows(source, estimate, options, workers, rest)) as rows,
        track(f"masks for {source.name}", len(share), rank_log.count, "images") as advance,
    ):
        try:
            for id, row in zip(rest, rows, strict=True):
                rank_log.append(row)
                if row.state == mask_file.MISSING:
                    rank_log.missing += 1
                    _check_bad_ratio(source, id, row, rank_log)
                advance(1)
        finally:
            rank_log.flush()
    rank_log.mark_done()


def _log_estimated_time(
    source: Source, estimate: Estimator, options: MaskOptions, workers: int, rest: range
) -> None:
    """Time a few images spread over the data, and log how long the rest will take."""
    from patchmill.kernels.common.compiling import announce_compilation

    few = rest[:: max(1, len(rest) // (_TIMED_IMAGES * workers))]
    if len(few) * 2 > len(rest):
        few = rest[:1]
    with (
        announce_compilation(),
        contextlib.closing(_rows(source, estimate, options, 1, few[:1])) as rows,
    ):
        list(rows)  # compiles, or loads compiled code
    if len(few) == 1:
        return
    began = time.monotonic()
    with contextlib.closing(_rows(source, estimate, options, workers, few)) as rows:
        list(rows)
    rate = len(few) / (time.monotonic() - began)
    log.info(
        "%s masks for %s images: about %s, at %.0f images/s with %d threads",
        estimate.method,
        f"{len(rest):,}",
        timedelta(seconds=round(len(rest) / rate)),
        rate,
        workers,
    )


def _rows(
    source: Source, estimate: Estimator, options: MaskOptions, workers: int, ids: range
) -> Generator[MaskRow, None, None]:
    def make_row(data: bytes | OSError) -> MaskRow:
        if isinstance(data, OSError):
            return mask_file.missing_row(data.strerror or str(data))
        try:
            image = images.decode_rgb(data, options.max_pixels)
        except BadImage as error:
            return mask_file.missing_row(str(error))
        saliency = estimate(image, options.max_side)
        return mask_file.mask_row(
            saliency.plane, saliency.foreground, saliency.confidence, saliency.why
        )

    with (
        contextlib.closing(
            map_ahead(partial(images.read, source), ids, _READERS, 2 * workers + _READERS)
        ) as encoded,
        contextlib.closing(map_ahead(make_row, encoded, workers, 2 * workers)) as rows,
    ):
        yield from rows


def _check_bad_ratio(source: Source, id: int, row: MaskRow, rank_log: MaskLog) -> None:
    if rank_log.missing > max(_BAD_MINIMUM, rank_log.count // _BAD_RATIO):
        raise MillError(
            f"{rank_log.missing} of the first {rank_log.count} images cannot be read, the latest "
            f"is {source.where(id)} ({row.why}): repair the source, then start over with "
            "--overwrite"
        )
