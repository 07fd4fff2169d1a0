"""Checkpoints on the disk: whole or not there, the last few and the best, written in a thread.

A file holds the dictionary that state.py makes, read without unpickling anything but tensors.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from patchmill.loaders.common.errors import MillError

log = logging.getLogger("patchmill")

VERSION = 1
FOLDER, BEST = "checkpoints", "best.pt"


def place(folder: Path, step: int) -> Path:
    return folder / FOLDER / f"step-{step:08d}.pt"


def kept(folder: Path) -> list[Path]:
    """All checkpoints of a run's folder, the oldest first."""
    return sorted((folder / FOLDER).glob("step-*.pt"))


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; None where there is none."""
    broken: list[str] = []
    for path in reversed(kept(folder)):
        if _whole(path):
            if broken:
                log.warning("%s is damaged: going on from %s", " and ".join(broken), path)
            return path
        broken.append(str(path))
    if broken:
        raise MillError(
            f"no checkpoint in {folder / FOLDER} can be read, they are damaged: remove "
            f"{' and '.join(broken)} to begin anew"
        )
    return None


def load(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """What a checkpoint holds."""
    if not Path(path).is_file():
        raise MillError(f"there is no checkpoint {path}")
    if not _whole(Path(path)):
        raise MillError(f"{path} is damaged, or not a checkpoint: go on from another")
    try:
        saved = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises what its unpickler meets
        raise MillError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(saved, dict) or saved.get("version") != VERSION:
        raise MillError(f"{path} is not a checkpoint of this version of patchmill")
    return saved


def set_aside(folder: Path, after: int) -> None:
    """A run that goes back to a step must not find later ones, when it is started again."""
    for path in kept(folder):
        if path > place(folder, after):
            path.rename(path.with_suffix(".pt.aside"))


def _whole(path: Path) -> bool:
    """torch.load does not compare the sums of what it reads with those in the file."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


class Writer:
    """Writes in a thread, one thing after the other; what goes wrong is raised by the next call."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self.seconds = 0.0  # that the last checkpoint took
        self._thread: threading.Thread | None = None
        self._error: MillError | None = None
        (folder / FOLDER).mkdir(exist_ok=True)
        for half in (folder / FOLDER).glob(".*.part"):
            half.unlink()

    def save(self, saved: dict[str, Any]) -> None:
        """`saved` is on the CPU, and nobody alters it any more."""
        self._start(lambda: self._save(saved), f"checkpoint {place(self._folder, saved['step'])}")

    def mark_best(self, step: int) -> None:
        """Make best.pt another name of a checkpoint, which remains when that one is removed."""
        best = self._folder / FOLDER / BEST
        self._start(lambda: _link(place(self._folder, step), best), f"{best}")

    def check(self) -> None:
        """A MillError if the last thing could not be written."""
        if self._error:
            error, self._error = self._error, None
            raise error

    def finish(self) -> None:
        """Wait until all is on the disk."""
        if self._thread:
            self._thread.join()
        self.check()

    def _start(self, write: Callable[[], None], what: str) -> None:
        self.finish()
        self._thread = threading.Thread(target=self._try, args=(write, what))
        self._thread.start()

    def _try(self, write: Callable[[], None], what: str) -> None:
        try:
            write()
        except (OSError, RuntimeError) as error:  # the latter of torch's writer
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            paths = kept(self._folder)
            last = f"it goes on from {paths[-1].name}" if paths else "it begins anew"
            self._error = MillError(
                f"cannot write {what} ({reason}): make room, then run the same command again, "
                f"and {last}"
            )

    def _save(self, saved: dict[str, Any]) -> None:
        began = time.monotonic()
        path = place(self._folder, saved["step"])
        half = path.with_name(f".{path.name}.part")
        try:
            with open(half, "wb") as file:
                torch.save(saved, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(half, path)
        finally:
            half.unlink(missing_ok=True)
        _to_disk(path.parent)
        self.seconds = time.monotonic() - began
        for old in kept(self._folder)[: -self._keep]:
            old.unlink()


def _link(path: Path, name: Path) -> None:
    half = name.with_name(f".{name.name}.part")
    half.unlink(missing_ok=True)
    try:
        os.link(path, half)
    except OSError:  # a disk that has no links
        shutil.copyfile(path, half)
    os.replace(half, name)
    _to_disk(name.parent)


def _to_disk(folder: Path) -> None:
    """That a file has its name is on the disk only when its folder is."""
    with contextlib.suppress(OSError):
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
