"""Masks of every image of a source, into one file beside it.

Threads make them, in the order of the samples, into a log; when the logs of all ranks are whole
they become the file. So neither the number of threads nor of ranks, nor where a run was killed,
shows in it. `copypaste/mask_file.py` says what is in it.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import logging
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import patchmill
from patchmill.loaders.common import files
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_ahead
from patchmill.loaders.copypaste import mask_file
from patchmill.loaders.copypaste.mask_file import MaskFile, MaskRow
from patchmill.loaders.decode.decoder import BadImage
from patchmill.loaders.prepare import images, mask_log
from patchmill.loaders.prepare.mask_log import MaskLog
from patchmill.loaders.prepare.options import difference
from patchmill.loaders.saliency import Estimator, estimator
from patchmill.loaders.sources import Source

log = logging.getLogger("patchmill")

LAYOUT_VERSION = 1  # raised when the same options no longer give the same bytes
LEAST_SIDE, MOST_SIDE = 16, 4096
_READERS = 8  # a disk on the network answers many at a time, and each takes a while
_MEASURED = 3  # images for each thread, to tell how long all will take
_TOLERATED, _LEAST_TOLERATED = 10, 100  # more than 1 in 10 missing, and more than 100: stop


@dataclass(frozen=True)
class Options:
    method: str = "rbd"
    max_side: int = 256  # pixels of a mask
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not LEAST_SIDE <= self.max_side <= MOST_SIDE:
            raise MillError(
                f"--max-side must be {LEAST_SIDE} to {MOST_SIDE} pixels, not {self.max_side}"
            )
        if not 0 <= self.rank < self.world_size:
            raise MillError(
                f"--rank must be 0 to {self.world_size - 1} for --world-size {self.world_size}, "
                f"not {self.rank}"
            )

    def piece(self, count: int) -> range:
        """This rank's samples."""
        bounds = (count * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return range(*bounds)


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    out: Path
    images: int  # in this run
    seconds: float
    waiting_for: list[int]  # ranks that are not done


def make(
    source: Source, out: Path, options: Options, workers: int, overwrite: bool = False
) -> Outcome | None:
    """Make the file, or what is left of it to make; None where it was complete already."""
    if overwrite and options.world_size > 1:
        raise MillError(f"--overwrite would remove what other ranks write: remove {out} yourself")
    estimate = estimator(options.method)
    known = _identity(source, options, estimate)
    with files.writing(out):
        if not out.parent.is_dir():
            raise MillError(f"cannot write {out}: there is no folder {out.parent}")
        if _claim(out, known, overwrite):
            return None
        began = time.monotonic()
        kept = MaskLog(_log(out, options.rank), known)
        before = kept.count
        try:
            _write(source, estimate, out, options, workers, kept)
        finally:
            kept.close()
        waiting = _put_together(source, estimate, out, options)
        return Outcome(out, kept.count - before, time.monotonic() - began, waiting)


def unfinished_ranks(source: Source, out: Path, options: Options) -> list[int] | None:
    """The ranks whose part is not complete; None where the file is. Nothing is written."""
    if not out.parent.is_dir():
        raise MillError(f"cannot write {out}: there is no folder {out.parent}")
    if _is_complete(out, _identity(source, options, estimator(options.method))):
        return None
    ranks = range(options.world_size)
    return [rank for rank in ranks if not mask_log.done(_log(out, rank))]


# ------------------------------------------------------------------------------------ whose it is


def _identity(source: Source, options: Options, estimate: Estimator) -> dict[str, Any]:
    """All that the bytes of the logs depend on, as plain data."""
    return {
        "layout": LAYOUT_VERSION,
        "source": source.fingerprint,
        "samples": len(source),
        "method": estimate.method,
        "estimator": estimate.fingerprint,
        "max_side": options.max_side,
        "world_size": options.world_size,
    }


def _log(out: Path, rank: int) -> Path:
    return out.with_name(f".{out.name}.{rank:04d}.part")


def _logs(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f".{glob.escape(out.name)}.????.part"))


def _claim(out: Path, known: dict[str, Any], overwrite: bool) -> bool:
    """Whether the file is complete already; a MillError where something else is in its place."""
    if overwrite:
        if out.exists():
            MaskFile(out)  # nothing else is removed
        for path in [*_logs(out), *[out][: out.exists()]]:
            path.unlink()
    if complete := _is_complete(out, known):
        for path in _logs(out):
            path.unlink(missing_ok=True)  # another rank may be doing so too
    return complete


def _is_complete(out: Path, known: dict[str, Any]) -> bool:
    """A MillError where something else is in its place; nothing is written."""
    if out.exists():
        _check(out, {**MaskFile(out).meta["made"], "world_size": known["world_size"]}, known)
        return True
    for path in _logs(out):
        if begun := mask_log.identity(path):
            _check(out, begun, known)
    return False


def _check(out: Path, begun: dict[str, Any], known: dict[str, Any]) -> None:
    if what := difference(begun, known):
        raise MillError(
            f"{out} was made with {what}: give the same options to continue, another --out, or "
            "--overwrite to make it anew"
        )


# ---------------------------------------------------------------------------------------- the work


def _write(
    source: Source, estimate: Estimator, out: Path, options: Options, workers: int, kept: MaskLog
) -> None:
    piece = options.piece(len(source))
    left = piece[kept.count :]
    if left:
        _forecast(source, estimate, options, workers, left)
    with (
        contextlib.closing(_rows(source, estimate, options, workers, left)) as rows,
        track(f"masks for {source.name}", len(piece), kept.count, "images") as advance,
    ):
        try:
            for id, row in zip(left, rows, strict=True):
                kept.append(row)
                if row.state == mask_file.MISSING:
                    kept.missing += 1
                    _check_limit(source, id, row, kept)
                advance(1)
        finally:
            kept.flush()
    kept.finish()


def _forecast(
    source: Source, estimate: Estimator, options: Options, workers: int, left: range
) -> None:
    """Say how long it will take, after a few images from all over the data."""
    from patchmill.kernels.common.jit import announce_compilation

    few = left[:: max(1, len(left) // (_MEASURED * workers))]
    if len(few) * 2 > len(left):
        few = left[:1]
    with (
        announce_compilation(),
        contextlib.closing(_rows(source, estimate, options, 1, few[:1])) as rows,
    ):
        list(rows)  # compiles, or loads what was compiled
    if len(few) == 1:
        return
    began = time.monotonic()
    with contextlib.closing(_rows(source, estimate, options, workers, few)) as rows:
        list(rows)
    rate = len(few) / (time.monotonic() - began)
    log.info(
        "%s masks for %s images: about %s, at %.0f images/s with %d threads",
        estimate.method,
        f"{len(left):,}",
        timedelta(seconds=round(len(left) / rate)),
        rate,
        workers,
    )


def _rows(
    source: Source, estimate: Estimator, options: Options, workers: int, ids: range
) -> Generator[MaskRow, None, None]:
    def read(id: int) -> bytes | OSError:
        try:
            return source.read(id)
        except OSError as error:
            return error

    def row(data: bytes | OSError) -> MaskRow:
        if isinstance(data, OSError):
            return mask_file.missing_row(data.strerror or str(data))
        try:
            image = images.decoded(data)
        except BadImage as error:
            return mask_file.missing_row(str(error))
        found = estimate(image, options.max_side)
        return mask_file.mask_row(found.plane, found.foreground, found.confidence, found.why)

    with (
        contextlib.closing(map_ahead(read, ids, _READERS, 2 * workers + _READERS)) as encoded,
        contextlib.closing(map_ahead(row, encoded, workers, 2 * workers)) as rows,
    ):
        yield from rows


def _check_limit(source: Source, id: int, row: MaskRow, kept: MaskLog) -> None:
    if kept.missing > max(_LEAST_TOLERATED, kept.count // _TOLERATED):
        raise MillError(
            f"{kept.missing} of the first {kept.count} images cannot be read, the latest "
            f"{source.where(id)} ({row.why}): mend the source, then begin anew with --overwrite"
        )


# ------------------------------------------------------------------------------------------ the end


def _put_together(source: Source, estimate: Estimator, out: Path, options: Options) -> list[int]:
    """Make the file of all ranks' logs, and remove them; the ranks that are not done yet."""
    logs = [_log(out, rank) for rank in range(options.world_size)]
    waiting = [rank for rank, path in enumerate(logs) if not mask_log.done(path)]
    if out.exists():
        return []  # another rank was faster
    if waiting:
        return waiting
    with _alone(logs[0]) as alone:
        if alone and not out.exists():
            for half in out.parent.glob(f"{glob.escape(out.name)}.*.tmp"):
                half.unlink()
            known = _identity(source, options, estimate)
            meta = {
                "source": source.fingerprint,
                "samples": len(source),
                "estimator": estimate.metadata(),
                "max_side": options.max_side,
                "made": {key: value for key, value in known.items() if key != "world_size"},
                "made_by": f"patchmill {patchmill.__version__}",
            }
            mask_file.write_mask_file(out, lambda: _all(logs), len(source), meta)
            for path in logs:
                path.unlink(missing_ok=True)
    return []


def _all(logs: list[Path]) -> Iterator[MaskRow]:
    return itertools.chain.from_iterable(map(mask_log.rows, logs))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether no other rank is at it, or has just been."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        files.hold(file, path)
        alone = True
    except MillError:
        alone = False
    try:
        yield alone
    finally:
        os.close(file)
