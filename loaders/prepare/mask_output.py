"""The files of a mask output: one log per rank, all merged into one file when they are done.

Ranks do not communicate: each marks its log, and any rank that finds all logs marked merges them.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import patchmill
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import mask_file
from patchmill.loaders.copypaste.mask_file import MaskFile, MaskRow
from patchmill.loaders.files import writing
from patchmill.loaders.prepare import mask_log
from patchmill.loaders.prepare.options import MaskOptions, difference, identity_of_max_pixels
from patchmill.loaders.saliency import Estimator
from patchmill.loaders.sources import Source

LAYOUT_VERSION = 1  # incremented when equal options no longer give equal bytes


def identity_of(source: Source, options: MaskOptions, estimate: Estimator) -> dict[str, Any]:
    """Everything that the bytes of the logs depend on, as JSON."""
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


def log_path(out: Path, rank: int) -> Path:
    return out.with_name(f".{out.name}.{rank:04d}.part")


def _log_paths(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f".{glob.escape(out.name)}.????.part"))


def check_folder(out: Path) -> None:
    if not out.parent.is_dir():
        raise MillError(f"cannot write {out}: there is no folder {out.parent}")


def claim(out: Path, identity: dict[str, Any], overwrite: bool) -> bool:
    """True if the file is complete already; MillError if something else is in its place."""
    if overwrite:
        if out.exists():
            MaskFile(out)  # raises a MillError for any other file, which must not be removed
        for path in [*_log_paths(out), *[out][: out.exists()]]:
            path.unlink()
    if complete := is_complete(out, identity):
        for path in _log_paths(out):
            path.unlink(missing_ok=True)  # another rank may be doing the same
    return complete


def is_complete(out: Path, identity: dict[str, Any]) -> bool:
    """True if the file exists; MillError if its options differ. Writes nothing."""
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
            "--overwrite to make it again"
        )


def merge_logs(source: Source, estimate: Estimator, out: Path, options: MaskOptions) -> list[int]:
    """Merge all ranks' logs into the file and remove them; return the ranks that are not done."""
    logs = [log_path(out, rank) for rank in range(options.world_size)]
    unfinished = unfinished_ranks(out, len(source), options)
    if out.exists():
        return []  # another rank was faster
    if unfinished:
        return unfinished
    with _try_lock(logs[0]) as locked:
        if locked and not out.exists():
            for stale in out.parent.glob(f"{glob.escape(out.name)}.*.tmp"):
                stale.unlink()
            identity = identity_of(source, options, estimate)
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


def unfinished_ranks(out: Path, count: int, options: MaskOptions) -> list[int]:
    """Ranks whose logs are not marked as done, or if all are, ranks whose logs lack rows.

    A machine that loses power may have saved a mark but not the rows before it.
    """
    ranks = [replace(options, rank=rank) for rank in range(options.world_size)]
    logs = [(log_path(out, rank.rank), len(rank.share(count))) for rank in ranks]
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
