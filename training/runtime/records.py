"""What a run leaves behind while it trains: log.csv, evaluations.jsonl, TensorBoard, and W&B.

All of them go on where the checkpoint stands that a run goes on from: what a life that was killed
recorded beyond it is dropped, and what it left half written with it.
"""

from __future__ import annotations

import csv
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
    """Of rank 0. `start` is how many steps were done before; each row says after how many it is."""

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

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._each(lambda sink: sink.scalars(step, values))

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        self._each(lambda sink: sink.evaluation(step, epoch, values))

    def close(self) -> None:
        self._each(lambda sink: sink.close())
        self._sinks = []

    def _each(self, do: Callable[[_Sink], None]) -> None:
        """A full disk ends the recording, and not the run: its checkpoints say what they think."""
        for sink in list(self._sinks):
            try:
                do(sink)
            except OSError as error:
                self._sinks.remove(sink)
                log.warning(
                    "%s is written no more (%s): the run goes on without",
                    sink.name,
                    error.strerror or error,
                )


def read(folder: Path) -> dict[str, list[float | None]]:
    """The columns of log.csv, None where a row has nothing; those that are whole lines."""
    names, rows = _rows(Path(folder) / LOG)
    return {name: [_number(row[place]) for row in rows] for place, name in enumerate(names)}


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """What evaluations.jsonl holds, those that are whole lines."""
    path = Path(folder) / EVALUATIONS
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]


# ------------------------------------------------------------------------------------ where it goes


class _Sink:
    name = ""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
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
        self._kept = [row for row in rows if int(row[0]) <= start]
        before = [it for it in evaluations(folder) if it.get("step", 0) <= start]
        text = "".join(json.dumps(it) + "\n" for it in before)
        write_atomic(folder / EVALUATIONS, text, durable=True)
        self._write_all()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if not set(values) <= set(self._names):
            _, self._kept = _rows(self._folder / LOG)
            self._names = [
                *(self._names or ["step"]),
                *(it for it in values if it not in self._names),
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
        wide = [row + [""] * (len(self._names) - len(row)) for row in self._kept]
        lines = map(_line, [self._names, *wide]) if self._names else ()
        write_atomic(self._folder / LOG, "".join(lines), durable=True)
        self._kept = []


class _TensorBoard(_Sink):
    name = "tensorboard"

    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = start + 1 if start else None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
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
        try:
            import wandb
        except ImportError:
            raise MillError(
                f"log.wandb={project} needs wandb, which is not installed: pip install wandb"
            ) from None
        known = folder / "wandb.id"  # so that all lives of a run are one there, too
        if not known.exists():
            write_atomic(known, secrets.token_hex(8), durable=True)
        self._run = wandb.init(
            project=project,
            id=known.read_text(),
            resume="allow",
            name=folder.name,
            dir=str(folder),
            config=dict(config),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({f"train/{name}": value for name, value in values.items()}, step=step)

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        self._run.log({f"evaluate/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


# ------------------------------------------------------------------------------------------- as CSV


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows, without a last line that was cut off."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    lines = list(csv.reader(io.StringIO(whole)))
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
