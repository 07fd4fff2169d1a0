"""Stage training data on each node's own disk: the node's first rank copies it before training.

Meant for a few large files: shards, a .beton, a zip or a Parquet file. Order, labels and states are
those of the originals, as fingerprints do not depend on paths. The next job reuses a complete copy,
and a node without enough disk space reads the originals.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.shards import paths

COMPLETE = ".complete"  # in a folder whose files are all copied
FAILED = ".failed"  # the reason if they are not
FOLDER = "patchmill-data"
SIDECARS = (".index", ".masks")  # next to a data file
SPARE = 2**30  # bytes that stay free on the node
POLL_S = 0.5


def files(data: str) -> list[Path]:
    """Files of data that can be staged; MillError for other data."""
    if paths.are_shard_urls(data):
        raise MillError(f"stage is for files, and {data} is streamed: omit stage")
    if paths.are_shard_paths(data):
        found = [Path(path) for path in paths.expand_paths(data)]
    elif Path(data).expanduser().is_file():
        found = [Path(data).expanduser()]
    else:
        raise MillError(
            f"stage copies a few large files, which {data} is not: make shards of it with "
            f"patchmill prepare {data} OUT, or omit stage"
        )
    if found != sorted(found, key=lambda path: path.name):
        raise MillError(
            f"stage needs shards in the order of their names, and {data} has another order"
        )
    return found


def stage(data: str, disk: str, first: bool, log: Callable[[str], None] = print) -> str:
    """The node's copy of the data, or the original data if it does not fit.

    `first` is true in the one process of each node that copies; the others wait.
    """
    originals = files(data)
    folder = Path(os.path.expandvars(os.path.expanduser(disk)), FOLDER, _digest(originals))
    if first:
        _copy_all(originals, folder, log)
    if not _wait(folder):
        return data
    return str(folder / originals[0].name if len(originals) == 1 else folder)


def _digest(originals: list[Path]) -> str:
    """A name for the current version of these files, from path, size and modification time."""
    states = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in originals
    ]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def _copy_all(originals: list[Path], folder: Path, log: Callable[[str], None]) -> None:
    if (folder / COMPLETE).exists():
        return
    wanted = [path for original in originals for path in (original, *_sidecars(original))]
    size = sum(path.stat().st_size for path in wanted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILED).unlink(missing_ok=True)
        there = sum(file.stat().st_size for file in folder.iterdir())
        if shutil.disk_usage(folder).free < size - there + SPARE:
            raise OSError(0, f"{size / 2**30:.1f} GiB do not fit")
        started = time.monotonic()
        for path in wanted:
            _copy(path, folder / path.name)
        (folder / COMPLETE).touch()
    except OSError as error:
        log(f"the data are not staged, {error.strerror} in {folder}: reading them where they are")
        _give_up(folder)
        return
    seconds = time.monotonic() - started
    log(f"staged {size / 2**30:.2f} GiB in {folder}, in {seconds:.0f} s")


def _copy(source: Path, target: Path) -> None:
    """Copy under a temporary name first; files that an interrupted job has copied stay."""
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    partial = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, partial)
    shutil.copystat(source, partial)
    partial.replace(target)


def _sidecars(path: Path) -> list[Path]:
    sidecars = [path.with_name(path.name + suffix) for suffix in SIDECARS]
    return [file for file in sidecars if file.is_file()]


def _give_up(folder: Path) -> None:
    """Signal failure to the node's other processes, unless even the folder could not be created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILED).touch()
    except OSError:
        pass


def _wait(folder: Path) -> bool:
    """Wait until the files are copied or the copy has failed; True if they are copied."""
    while not (folder / COMPLETE).exists():
        if (folder / FAILED).exists() or not os.access(folder.parent.parent, os.W_OK):
            return False
        time.sleep(POLL_S)
    return True
