"""Make masks of every image of a source, in one file beside it.

Threads make them in the order of the samples, into a log per rank. When all ranks' logs are done,
they are merged into the file. So its bytes do not depend on the number of threads or ranks, nor on
interruptions. `copypaste/mask_file.py` describes the format.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import logging
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import patchmill
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.shortage import shortage
from patchmill.loaders.common.threads import map_ahead
from patchmill.loaders.copypaste import mask_file
from patchmill.loaders.copypaste.mask_file import MaskFile, MaskRow
from patchmill.loaders.decode.decoder import MAX_PIXELS, BadImage
from patchmill.loaders.files import writing
from patchmill.loaders.prepare import images, mask_log
from patchmill.loaders.prepare.mask_log import MaskLog
from patchmill.loaders.prepare.options import (
    check_max_pixels,
    difference,
    identity_of_max_pixels,
)
from patchmill.loaders.prepare.report import format_ranks, mask_file_lines
from patchmill.loaders.saliency import Estimator, estimator
from patchmill.loaders.sources import Source

log = logging.getLogger("patchmill")

LAYOUT_VERSION = 1  # raised when equal options no longer give equal bytes
MIN_SIDE, MAX_SIDE = 16, 4096
_READERS = 8  # network storage serves many reads at a time, each with a delay
_TIMED_IMAGES = 3  # per thread, to estimate the total time
# Stop if more than 1 in 10 images cannot be read, and more than 100.
_BAD_RATIO, _BAD_MINIMUM = 10, 100


@dataclass(frozen=True)
class MaskOptions:
    method: str = "rbd"
    max_side: int = 256  # pixels of a mask
    rank: int = 0
    world_size: int = 1
    max_pixels: int = MAX_PIXELS  # of an image; a larger one has no mask

    def __post_init__(self) -> None:
        if not MIN_SIDE <= self.max_side <= MAX_SIDE:
            raise MillError(
                f"--max-side must be {MIN_SIDE} to {MAX_SIDE} pixels, not {self.max_side}"
            )
        check_max_pixels(self.max_pixels)
        if not 0 <= self.rank < self.world_size:
            raise MillError(
                f"--rank must be 0 to {self.world_size - 1} for --world-size {self.world_size}, "
                f"not {self.rank}"
            )

    def share(self, count: int) -> range:
        """This rank's samples."""
        bounds = (count * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return range(*bounds)


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
            lines.append(f"this rank is done; the file is made after ranks {ranks}")
        elif self.out.exists():
            lines += [*mask_file_lines(MaskFile(self.out)), f"complete: {self.out}"]
        return "\n".join(lines)


def make(
    source: Source, out: Path, options: MaskOptions, workers: int, overwrite: bool = False
) -> MasksResult | None:
    """Make this rank's share of the masks, or the rest of it; None if all was complete already."""
    if overwrite and options.world_size > 1:
        raise MillError(f"--overwrite would remove what other ranks write: remove {out} yourself")
    estimate = estimator(options.method)
    identity = _identity(source, options, estimate)
    with writing.output_errors(out):
        _check_folder(out)
        if _claim(out, identity, overwrite):
            return None
        began = time.monotonic()
        rank_log = MaskLog(_log_path(out, options.rank), identity)
        before = rank_log.count
        try:
            _write_share(source, estimate, options, workers, rank_log)
        finally:
            rank_log.close()
        unfinished = _merge_logs(source, estimate, out, options)
        return MasksResult(out, rank_log.count - before, time.monotonic() - began, unfinished)


def unfinished_ranks(source: Source, out: Path, options: MaskOptions) -> list[int] | None:
    """Ranks whose shares are not complete; None if the file is. Writes nothing."""
    _check_folder(out)
    if _is_complete(out, _identity(source, options, estimator(options.method))):
        return None
    return _not_done(out, len(source), options)


# ------------------------------------------------------------------------------------------- claims


def _identity(source: Source, options: MaskOptions, estimate: Estimator) -> dict[str, Any]:
    """All that the bytes of the logs depend on, as JSON."""
    return {
        "layout": LAYOUT_VERSION,
        "source": source.fingerprint,
        "samples": len(source),
        "method": estimate.method,
        "estimator": estimate.fingerprint,
        "max_side": options.max_side,
        "world_size": options.world_size,
        **identity_of_max_pixels(options.max_pixels),
    }


def _log_path(out: Path, rank: int) -> Path:
    return out.with_name(f".{out.name}.{rank:04d}.part")


def _log_paths(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f".{glob.escape(out.name)}.????.part"))


def _check_folder(out: Path) -> None:
    if not out.parent.is_dir():
        raise MillError(f"cannot write {out}: there is no folder {out.parent}")


def _claim(out: Path, identity: dict[str, Any], overwrite: bool) -> bool:
    """True if the file is complete already; a MillError if something else is in its place."""
    if overwrite:
        if out.exists():
            MaskFile(out)  # a MillError for any other file, which must not be removed
        for path in [*_log_paths(out), *[out][: out.exists()]]:
            path.unlink()
    if complete := _is_complete(out, identity):
        for path in _log_paths(out):
            path.unlink(missing_ok=True)  # another rank may be doing the same
    return complete


def _is_complete(out: Path, identity: dict[str, Any]) -> bool:
    """True if the file exists; a MillError if its options differ. Writes nothing."""
    if out.exists():
        made = {**MaskFile(out).meta["made"], "world_size": identity["world_size"]}
        _check_same(out, made, identity)
        return True
    for path in _log_paths(out):
        if earlier := mask_log.read_identity(path):
            _check_same(out, earlier, identity)
    return False


def _check_same(out: Path, earlier: dict[str, Any], identity: dict[str, Any]) -> None:
    if changed := difference(earlier, identity):
        raise MillError(
            f"{out} was made with {changed}: give the same options to continue, another --out, or "
            "--overwrite to make it anew"
        )


# ------------------------------------------------------------------------------------ making masks


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
    """Time a few images from all over the data, and log how long the rest will take."""
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
    def read(id: int) -> bytes | OSError:
        try:
            return source.read(id)
        except OSError as error:
            if shortage(error):  # no fault of the sample's
                raise
            return error

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
        contextlib.closing(map_ahead(read, ids, _READERS, 2 * workers + _READERS)) as encoded,
        contextlib.closing(map_ahead(make_row, encoded, workers, 2 * workers)) as rows,
    ):
        yield from rows


def _check_bad_ratio(source: Source, id: int, row: MaskRow, rank_log: MaskLog) -> None:
    if rank_log.missing > max(_BAD_MINIMUM, rank_log.count // _BAD_RATIO):
        raise MillError(
            f"{rank_log.missing} of the first {rank_log.count} images cannot be read, the latest "
            f"{source.where(id)} ({row.why}): repair the source, then start anew with --overwrite"
        )


# ------------------------------------------------------------------------------------------ merging


def _merge_logs(source: Source, estimate: Estimator, out: Path, options: MaskOptions) -> list[int]:
    """Merge all ranks' logs into the file and remove them; return the ranks that are not done."""
    logs = [_log_path(out, rank) for rank in range(options.world_size)]
    unfinished = _not_done(out, len(source), options)
    if out.exists():
        return []  # another rank was faster
    if unfinished:
        return unfinished
    with _try_lock(logs[0]) as locked:
        if locked and not out.exists():
            for stale in out.parent.glob(f"{glob.escape(out.name)}.*.tmp"):
                stale.unlink()
            identity = _identity(source, options, estimate)
            meta = {
                "source": source.fingerprint,
                "samples": len(source),
                "estimator": estimate.metadata(),
                "max_side": options.max_side,
                "made": {key: value for key, value in identity.items() if key != "world_size"},
                "made_by": f"patchmill {patchmill.__version__}",
            }
            mask_file.write_mask_file(out, lambda: _all_rows(logs), len(source), meta)
            for path in logs:
                path.unlink(missing_ok=True)
    return []


def _not_done(out: Path, count: int, options: MaskOptions) -> list[int]:
    """Ranks whose logs have no mark of being done; where all have it, those whose logs lack rows.

    A machine that loses power may have saved a mark and not the rows before it.
    """
    ranks = [replace(options, rank=rank) for rank in range(options.world_size)]
    logs = [(_log_path(out, rank.rank), len(rank.share(count))) for rank in ranks]
    unmarked = [rank for rank, (path, _) in enumerate(logs) if not mask_log.is_done(path)]
    return unmarked or [rank for rank, log in enumerate(logs) if not mask_log.is_whole(*log)]


def _all_rows(logs: list[Path]) -> Iterator[MaskRow]:
    return itertools.chain.from_iterable(map(mask_log.rows, logs))


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Yield False if another rank holds the lock, or has merged and removed the log already."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        writing.lock_output(file, path)
        locked = True
    except MillError:
        locked = False
    try:
        yield locked
    finally:
        os.close(file)
