"""Records of a run: log.csv, evaluations.jsonl, TensorBoard and Weights & Biases.

A resumed run continues them from its checkpoint: rows that a killed process wrote after it, whole
or in part, are dropped.
"""

from __future__ import annotations

import importlib.util
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import reason, write_atomic
from patchmill.training.runtime import event_files, record_files
from patchmill.training.runtime.record_files import EVALUATIONS, LOG

__all__ = ["EVALUATIONS", "LOG", "Recorder", "check_wandb", "evaluations", "read"]

log = logging.getLogger("patchmill")

Lines = TypeVar("Lines", record_files.Log, record_files.Evaluations)


class Recorder:
    """Writes scalars and evaluations to all records, on rank 0.

    `start` is the step that the run resumes after. A row's step counts completed steps.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        start: int = 0,
        tensorboard: bool = True,
        wandb: str | None = None,
    ) -> None:
        self._failed: list[_Sink] = []  # in the last call
        self._sinks: list[_Sink] = [_Files(folder, start)]
        if tensorboard:
            self._sinks.append(_TensorBoard(folder, start))
        if wandb:
            self._sinks.append(_WandB(folder, wandb, config))

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Record a row; a value of None is an empty cell."""
        self._each(lambda sink: sink.scalars(step, values))

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        self._each(lambda sink: sink.evaluation(step, epoch, values))

    def close(self) -> None:
        self._each(lambda sink: sink.close())
        self._sinks = []

    def _each(self, call: Callable[[_Sink], None]) -> None:
        """Call every sink; the run continues if one cannot write."""
        for sink in list(self._sinks):
            try:
                call(sink)
            except OSError as error:
                if not sink.retries:
                    self._sinks.remove(sink)
                if sink not in self._failed:
                    self._failed.append(sink)
                    then = (
                        "rows are kept until there is disk space"
                        if sink.retries
                        else "the run continues without it"
                    )
                    log.warning("cannot write %s: %s; %s", sink.name, reason(error), then)
            else:
                if sink in self._failed:
                    self._failed.remove(sink)
                    log.info("%s can be written again", sink.name)


def read(folder: Path) -> dict[str, list[float | None]]:
    """Return the columns of log.csv, with None for empty cells; skips unreadable lines."""
    found = _read(record_files.read_log, Path(folder) / LOG)
    names, rows = (found.names, found.rows) if found else ([], [])
    return {name: [record_files.number(row[i]) for row in rows] for i, name in enumerate(names)}


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of evaluations.jsonl; skips unreadable lines.

    Each has a step, an epoch and metrics, all of them finite numbers.
    """
    found = _read(record_files.read_evaluations, Path(folder) / EVALUATIONS)
    return found.rows if found else []


def _read(reader: Callable[[Path], Lines], path: Path) -> Lines | None:
    """Parse a file with `reader`; warn about skipped lines or an unreadable file."""
    try:
        found = reader(path)
    except OSError as error:
        log.warning("cannot read %s (%s): it is skipped", path, reason(error))
        return None
    if found.bad:
        lines = "1 line" if found.bad == 1 else f"{found.bad:,} lines"
        log.warning("%s: skipped %s that cannot be read", path, lines)
    return found


# -------------------------------------------------------------------------------------------- sinks


class _Sink:
    name = ""
    retries = False  # on the next call after an error

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        raise NotImplementedError

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _Files(_Sink):
    name = f"{LOG} and {EVALUATIONS}"
    retries = True

    def __init__(self, folder: Path, start: int) -> None:
        self._files = record_files.RecordFiles(folder, start)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        self._files.scalars(step, values)

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        self._files.evaluation(step, epoch, values)

    def close(self) -> None:
        self._files.flush()


class _TensorBoard(_Sink):
    name = "tensorboard"

    def __init__(self, folder: Path, start: int) -> None:
        purge = start + 1 if start else None
        self._file = event_files.EventFile(folder / "tensorboard", purge)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        known = {f"train/{name}": value for name, value in values.items() if value is not None}
        self._file.add(step, known)

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        self._file.add(step, {f"evaluate/{name}": value for name, value in values.items()})

    def close(self) -> None:
        self._file.close()


class _WandB(_Sink):
    name = "Weights & Biases"

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        import wandb

        id_file = folder / "wandb.id"  # restarts of a run continue the same W&B run
        if not id_file.exists():
            write_atomic(id_file, secrets.token_hex(8), durable=True)
        self._run = wandb.init(
            project=project,
            id=id_file.read_text(),
            resume="allow",
            name=folder.name,
            dir=str(folder),
            config=dict(config),
        )

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        known = {f"train/{name}": value for name, value in values.items() if value is not None}
        self._run.log(known, step=step)

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        self._run.log({f"evaluate/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


def check_wandb(project: str | None) -> None:
    """Raise a MillError if a run should log to Weights & Biases, but its package is missing."""
    if project is None:
        return
    package = importlib.util.find_spec("wandb")
    if package is None or package.origin is None:  # a folder wandb/ is not a package
        raise MillError(
            f"log.wandb={project} needs wandb, which is not installed: pip install wandb"
        )
