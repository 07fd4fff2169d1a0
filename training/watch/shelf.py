"""The runs below a folder, listed every few seconds, with the current contents of their files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from patchmill.training.watch import run_files
from patchmill.training.watch.follow import Follower

DEPTH = 3  # folder levels below the watched one: runs/sweep/setting/seed
MOST_RUNS = 1000
LIST_EVERY, LOOK_EVERY = 3.0, 1.0  # seconds between scans for runs, and of their files
REST = 10  # pause in multiples of a scan's duration: disks and networks may be slow
_NOT_RUNS = ("checkpoints", "tensorboard", "exports", "finetune", "wandb")
_Stamp = tuple[tuple[int, int], ...]


class Shelf:
    """Runs by name, which is the path below `root`; if `root` is a run, it is the only one.

    Nothing outside these folders is read, and names from requests are only looked up.
    """

    def __init__(self, root: Path) -> None:
        self.title, self.root = str(root), root.resolve()
        self._lock, self._table_lock = threading.Lock(), threading.Lock()
        self._next_list = self._next_look = float("-inf")
        self._runs: dict[str, Run] = {}
        self._table: list[dict[str, Any]] = []

    @property
    def is_one_run(self) -> bool:
        return _is_run(self.root)

    def runs(self) -> dict[str, Run]:
        with self._lock:
            start = time.monotonic()
            if start >= self._next_list:
                names = list(_names(self.root))[:MOST_RUNS]
                self._runs = {
                    name: self._runs.get(name) or Run(name, self.root / name) for name in names
                }
                self._next_list = _next(start, LIST_EVERY)
            return self._runs

    def table(self) -> list[dict[str, Any]]:
        """One row per run; all pages share one read of their files."""
        runs = self.runs()
        with self._table_lock:
            start = time.monotonic()
            if start >= self._next_look or len(runs) != len(self._table):
                self._table = [run.line() for run in runs.values()]
                self._next_look = _next(start, LOOK_EVERY)
            return self._table


class Run:
    """One run's folder; its files are reread only when they change."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.log = name, folder, Follower(folder)
        self._lock = threading.Lock()
        self._read: dict[str, tuple[_Stamp, Any]] = {}

    @property
    def status(self) -> dict[str, Any]:
        return self._get("status", run_files.status, "status.json")

    @property
    def settings(self) -> dict[str, Any]:
        return self._get("settings", run_files.settings, "config.yaml")

    @property
    def evaluations(self) -> list[dict[str, float]]:
        return self._get("evaluations", run_files.evaluations, "evaluations.jsonl")

    @property
    def ledger(self) -> list[dict[str, Any]]:
        return self._get("ledger", run_files.ledger, *run_files.ledgers(self.folder))

    @property
    def pictures(self) -> list[str]:
        return self._get("pictures", run_files.pictures, ".")

    def line(self) -> dict[str, Any]:
        """The run's row in the table of runs."""
        settings, status = self.settings, self.status
        scores = [row["knn"] for row in self.evaluations if "knn" in row]
        return {
            "id": self.name,
            "name": self.name if self.name != "." else self.folder.name,
            "method": settings.get("method_name"),
            "data": settings.get("data.name"),
            "scale": settings.get("scale"),
            "model": settings.get("model.name"),
            "best": max(scores, default=None),
            "knn": scores[-1] if scores else None,
            "batch": settings.get("train.batch_size"),
            "epochs": settings.get("train.epochs"),
            **{name: value for name, value in run_files.clean(status).items() if name != "loader"},
        }

    def details(self) -> dict[str, Any]:
        """Details of a selected run that the page shows in addition to its log."""
        ledger = self.ledger
        return {
            "id": self.name,
            "settings": self.settings,
            "evaluations": self.evaluations,
            "pictures": [(name, _modified(self.folder / name)) for name in self.pictures],
            "bad": len(ledger),
            "ledger": run_files.clean(ledger[-run_files.MOST_BAD :]),
        }

    def _get(self, what: str, read: Callable[[Path], Any], *names: str) -> Any:
        stamp = tuple(_stamp(self.folder / name) for name in names)
        with self._lock:
            if what not in self._read or self._read[what][0] != stamp:
                self._read[what] = stamp, read(self.folder)
            return self._read[what][1]


def _next(start: float, every: float) -> float:
    """Time of the next scan, after one that began at `start`."""
    return max(start + every, start + REST * (time.monotonic() - start))


class _Folder(NamedTuple):
    path: str
    depth: int


def _names(root: Path) -> Iterator[str]:
    """Names of the runs at or below `root`, in path order."""
    if _is_run(root):
        yield "."
        return
    pending = [_Folder(".", 0)]
    while pending:
        folder = pending.pop()
        if folder.depth and _is_run(root / folder.path):
            yield folder.path
        elif folder.depth < DEPTH:
            pending += [
                _Folder(os.path.normpath(f"{folder.path}/{name}"), folder.depth + 1)
                for name in sorted(_folders(root / folder.path), reverse=True)
            ]


def _folders(path: Path) -> list[str]:
    """Subfolders of a folder, without links and hidden ones."""
    try:
        entries = list(os.scandir(path))
    except OSError:
        return []
    return [
        entry.name
        for entry in entries
        if entry.name[0] != "." and entry.name not in _NOT_RUNS and _is_folder(entry)
    ]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in run_files.SIGNS)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def _modified(path: Path) -> int:
    return _stamp(path)[0] // 10**6
