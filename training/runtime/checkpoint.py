"""Checkpoints on disk: written atomically in a thread; the last few and the best are kept.

A file holds State.state_dict(), read without unpickling anything but tensors.
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
from typing import TYPE_CHECKING, Any

import torch

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.files import atomic_path

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("patchmill")

VERSION = 1
FOLDER, BEST = "checkpoints", "best.pt"


def path_at(folder: Path, step: int) -> Path:
    return folder / FOLDER / f"step-{step:08d}.pt"


def find_all(folder: Path) -> list[Path]:
    """All checkpoints in a run's folder, the oldest first."""
    return sorted((folder / FOLDER).glob("step-*.pt"))


def newest(folder: Path) -> Path | None:
    """The newest intact checkpoint; None where there is none."""
    damaged: list[str] = []
    for path in reversed(find_all(folder)):
        if _is_intact(path):
            if damaged:
                log.warning("%s is damaged: going on from %s", " and ".join(damaged), path)
            return path
        damaged.append(str(path))
    if damaged:
        raise MillError(
            f"no checkpoint in {folder / FOLDER} can be read, they are damaged: remove "
            f"{' and '.join(damaged)} to begin anew"
        )
    return None


def load(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read and check a checkpoint."""
    if not Path(path).is_file():
        raise MillError(f"there is no checkpoint {path}")
    if not _is_intact(Path(path)):
        raise MillError(f"{path} is damaged, or not a checkpoint: go on from another")
    try:
        saved = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises what its unpickler meets
        raise MillError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(saved, dict) or saved.get("version") != VERSION:
        raise MillError(f"{path} is not a checkpoint of this version of patchmill")
    return saved


def load_networks(method: nn.Module, saved: dict[str, Any], path: Path) -> None:
    """Load a checkpoint's networks into a method that is not sharded."""
    try:
        method.load_state_dict(saved["method"])
    except RuntimeError as error:
        raise MillError(
            f"{path} does not fit the networks ({str(error).splitlines()[-1].strip()})"
        ) from None


def weights_are_finite(saved: dict[str, Any]) -> bool:
    """Check the networks for NaN and infinity: a loss shows a bad step only at the next."""
    tensors = (value for value in saved["method"].values() if value.is_floating_point())
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def set_aside(folder: Path, step: int) -> None:
    """Rename checkpoints after `step`, so that a run that went back to it does not resume there."""
    for path in find_all(folder):
        if path > path_at(folder, step):
            path.rename(path.with_suffix(".pt.aside"))


def _is_intact(path: Path) -> bool:
    """Compare the checksums in the file, which torch.load does not."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


class Writer:
    """Writes checkpoints in a thread, one at a time; an error is raised by the next call."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self.seconds = 0.0  # duration of the last save
        self._thread: threading.Thread | None = None
        self._error: MillError | None = None
        (folder / FOLDER).mkdir(exist_ok=True)
        for partial in (folder / FOLDER).glob(".*.part"):
            partial.unlink()

    def save(self, saved: dict[str, Any]) -> None:
        """Start writing `saved`, which is on the CPU and which nobody changes any more."""
        self._start(lambda: self._save(saved), f"checkpoint {path_at(self._folder, saved['step'])}")

    def mark_best(self, step: int) -> None:
        """Hard-link a checkpoint as best.pt, which remains when the checkpoint is removed."""
        best = self._folder / FOLDER / BEST
        self._start(lambda: _link(path_at(self._folder, step), best), f"{best}")

    def check(self) -> None:
        """Raise the MillError of the last write, if it failed."""
        if self._error:
            error, self._error = self._error, None
            raise error

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until everything is on disk."""
        if self._thread:
            self._thread.join()
        self.check()

    def _start(self, write: Callable[[], None], what: str) -> None:
        self.wait()
        self._thread = threading.Thread(target=self._try, args=(write, what))
        self._thread.start()

    def _try(self, write: Callable[[], None], what: str) -> None:
        try:
            write()
        except (OSError, RuntimeError) as error:  # the latter of torch's writer
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            paths = find_all(self._folder)
            resumes = f"it goes on from {paths[-1].name}" if paths else "it begins anew"
            self._error = MillError(
                f"cannot write {what} ({reason}): make room, then run the same command again, "
                f"and {resumes}"
            )

    def _save(self, saved: dict[str, Any]) -> None:
        start = time.monotonic()
        path = path_at(self._folder, saved["step"])
        with atomic_path(path, durable=True) as partial, open(partial, "wb") as file:
            torch.save(saved, file)
        _sync_folder(path.parent)
        self.seconds = time.monotonic() - start
        for old in find_all(self._folder)[: -self._keep]:
            old.unlink()


def _link(path: Path, name: Path) -> None:
    with atomic_path(name) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(path, partial)
        except OSError:  # a disk without hard links
            shutil.copyfile(path, partial)
    _sync_folder(name.parent)


def _sync_folder(folder: Path) -> None:
    """Flush a folder: only then is a rename in it durable."""
    with contextlib.suppress(OSError):
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
