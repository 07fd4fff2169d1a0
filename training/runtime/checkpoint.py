"""Checkpoints on disk: written atomically in a thread; the last few and the best are kept.

A file holds State.state_dict() and its own checksum (checkpoint_file.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import atomic_path, output_errors, reason
from patchmill.training.runtime import checkpoint_file
from patchmill.training.runtime.checkpoint_file import Unreadable

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("patchmill")

VERSION = 1
FOLDER, BEST = "checkpoints", "best.pt"


# Parts that all readers of a checkpoint use; State.load_state_dict checks the others.
PARTS: dict[str, type | tuple[type, ...]] = {"step": int, "epoch": (int, float), "method": dict}


class Found(NamedTuple):
    path: Path
    saved: dict[str, Any]


def path_at(folder: Path, step: int) -> Path:
    return folder / FOLDER / f"step-{step:08d}.pt"


def find_all(folder: Path) -> list[Path]:
    """Return all checkpoints in a run's folder, oldest first."""
    return sorted((folder / FOLDER).glob("step-*.pt"))


def load_newest(folder: Path) -> Found | None:
    """Load the newest readable checkpoint; None if there are no checkpoints."""
    unreadable: list[str] = []
    for path in reversed(find_all(folder)):
        try:
            saved = _read(path)
        except Unreadable as error:
            unreadable.append(f"{path} {error}")
            continue
        if unreadable:
            log.warning("%s: resuming from %s", " and ".join(unreadable), path)
        return Found(path, saved)
    if unreadable:
        raise MillError(
            f"no checkpoint in {folder / FOLDER} can be read: {' and '.join(unreadable)}; remove "
            "them to start from scratch"
        )
    return None


def load(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read and check a checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise MillError(f"there is no checkpoint {path}")
    try:
        return _read(path, map_location)
    except Unreadable as error:
        raise MillError(f"{path} {error}: use another") from None


def _read(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint; raise Unreadable if it is damaged, MillError if of another version."""
    saved = checkpoint_file.read(path, map_location)
    if not isinstance(saved, dict) or not isinstance(saved.get("version"), int):
        raise Unreadable("is not a checkpoint")
    if saved["version"] != VERSION:
        raise MillError(f"{path} is not a checkpoint of this version of patchmill")
    for name, kind in PARTS.items():
        if not isinstance(saved.get(name), kind):
            raise Unreadable(f"is not a checkpoint (its {name} is missing)")
    if not all(isinstance(value, torch.Tensor) for value in saved["method"].values()):
        raise Unreadable("is not a checkpoint (its networks are not tensors)")
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
    """Check the networks for NaN and infinity: a bad update shows only in the next step's loss."""
    tensors = (value for value in saved["method"].values() if value.is_floating_point())
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def set_aside(folder: Path, step: int) -> None:
    """Rename checkpoints after `step`, so that a run that went back to it ignores them."""
    for path in find_all(folder):
        if path > path_at(folder, step):
            path.rename(path.with_suffix(".pt.aside"))


class Writer:
    """Writes checkpoints in a thread, one at a time; an error is raised by the next call."""

    def __init__(self, folder: Path, keep: int, start: int = 0) -> None:
        """`start` is the step of the checkpoint that the run resumes from."""
        self._folder, self._keep = folder, keep
        self.seconds = 0.0  # duration of the last save
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        with output_errors(folder / FOLDER):
            (folder / FOLDER).mkdir(exist_ok=True)
            for partial in (folder / FOLDER).glob(".*.part"):
                partial.unlink()
            if find_all(folder)[-1:] == [path_at(folder, start)]:
                self._remove_old()  # left by a run that was killed before it removed them

    def save(self, saved: dict[str, Any]) -> None:
        """Start writing `saved`, which must be on the CPU and must not be changed afterwards."""
        self._start(lambda: self._save(saved), f"checkpoint {path_at(self._folder, saved['step'])}")

    def mark_best(self, step: int) -> None:
        """Hard-link a checkpoint as best.pt, which stays when the checkpoint is removed."""
        best = self._folder / FOLDER / BEST
        self._start(lambda: _link(path_at(self._folder, step), best), f"{best}")

    def check(self) -> None:
        """Raise the error of the last write, if it failed."""
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
        thread = threading.Thread(target=self._try, args=(write, what))
        thread.start()  # may find no memory
        self._thread = thread

    def _try(self, write: Callable[[], None], what: str) -> None:
        try:
            write()
        except (OSError, RuntimeError) as error:  # RuntimeError comes from torch's writer
            why = reason(error) if isinstance(error, OSError) else str(error).splitlines()[0]
            paths = find_all(self._folder)
            then = f"to resume from {paths[-1].name}" if paths else "to start from scratch"
            self._error = MillError(
                f"cannot write {what}: {why}; free some disk space, then run the same command "
                f"again {then}"
            )
        except BaseException as error:  # the thread would only print it
            self._error = error

    def _save(self, saved: dict[str, Any]) -> None:
        start = time.monotonic()
        path = path_at(self._folder, saved["step"])
        with atomic_path(path, durable=True) as partial, open(partial, "wb") as file:
            checkpoint_file.write(saved, file)
        _sync_folder(path.parent)
        self.seconds = time.monotonic() - start
        self._remove_old()

    def _remove_old(self) -> None:
        for old in find_all(self._folder)[: -self._keep]:
            old.unlink(missing_ok=True)


def _link(path: Path, name: Path) -> None:
    with atomic_path(name) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(path, partial)
        except OSError:  # a disk without hard links
            shutil.copyfile(path, partial)
    _sync_folder(name.parent)


def _sync_folder(folder: Path) -> None:
    """Flush a folder: a rename in it is durable only then."""
    with contextlib.suppress(OSError):
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
