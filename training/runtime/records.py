"""Records of a run: log.csv, evaluations.jsonl, TensorBoard and Weights & Biases.

A run that resumes continues them at its checkpoint: rows that a killed process wrote after that,
whole or in part, are dropped.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.files import write_atomic

log = logging.getLogger("patchmill")

LOG, EVALUATIONS = "log.csv", "evaluations.jsonl"


class Recorder:
    """Writes scalars and evaluations to all records, on rank 0.

    `start` is the step that the run resumes after. The step of a row counts completed steps.
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
        """Call every sink; drop one that cannot write, as the run goes on without records."""
        for sink in list(self._sinks):
            try:
                call(sink)
            except OSError as error:
                self._sinks.remove(sink)
                log.warning(
                    "cannot write %s any more (%s): the run goes on without it",
                    sink.name,
                    error.strerror or error,
                )


def read(folder: Path) -> dict[str, list[float | None]]:
    """Columns of log.csv, with None for empty cells; an incomplete last line is left out."""
    names, rows = _rows(Path(folder) / LOG)
    return {name: [_number(row[i]) for row in rows] for i, name in enumerate(names)}


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Rows of evaluations.jsonl; an incomplete last line is left out."""
    path = Path(folder) / EVALUATIONS
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]


# -------------------------------------------------------------------------------------------- sinks


class _Sink:
    name = ""

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        raise NotImplementedError

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _Files(_Sink):
    name = f"{LOG} and {EVALUATIONS}"

    def __init__(self, folder: Path, start: int) -> None:
        self._folder = folder
        self._names, rows = _rows(folder / LOG)
        self._old_rows = [row for row in rows if int(row[0]) <= start]
        before = [row for row in evaluations(folder) if row.get("step", 0) <= start]
        text = "".join(json.dumps(row) + "\n" for row in before)
        write_atomic(folder / EVALUATIONS, text, durable=True)
        self._write_all()

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        if not set(values) <= set(self._names):
            _, self._old_rows = _rows(self._folder / LOG)
            self._names = [
                *(self._names or ["step"]),
                *(name for name in values if name not in self._names),
            ]
            self._write_all()
        row = [str(step), *(_text(values.get(name)) for name in self._names[1:])]
        with open(self._folder / LOG, "a", newline="") as file:
            file.write(_line(row))

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        with open(self._folder / EVALUATIONS, "a") as file:
            file.write(json.dumps({"step": step, "epoch": epoch, **values}) + "\n")

    def close(self) -> None:
        pass

    def _write_all(self) -> None:
        padded = [row + [""] * (len(self._names) - len(row)) for row in self._old_rows]
        lines = map(_line, [self._names, *padded]) if self._names else ()
        write_atomic(self._folder / LOG, "".join(lines), durable=True)
        self._old_rows = []


class _TensorBoard(_Sink):
    name = "tensorboard"

    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = start + 1 if start else None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(f"train/{name}", value, step)

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"evaluate/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


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
    """Raise a MillError if a run is to log to Weights & Biases, and its package is missing."""
    if project is None:
        return
    package = importlib.util.find_spec("wandb")
    if package is None or package.origin is None:  # a folder wandb/ is no package
        raise MillError(
            f"log.wandb={project} needs wandb, which is not installed: pip install wandb"
        )


# ---------------------------------------------------------------------------------------------- CSV


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows, without an incomplete last line."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    complete = text[: text.rfind("\n") + 1]
    lines = list(csv.reader(io.StringIO(complete)))
    if not lines:
        return [], []
    names, *rows = lines
    return names, [row for row in rows if len(row) == len(names)]


def _line(row: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue()


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.8g}"


def _number(text: str) -> float | None:
    return float(text) if text else None
