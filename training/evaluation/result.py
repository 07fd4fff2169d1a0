"""Result of an evaluation: a table for the terminal, and JSON for the run's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import printable
from patchmill.loaders.files.writing import reason, write_atomic
from patchmill.training.runtime import records


@dataclass(frozen=True)
class EvaluationResult:
    name: str  # of the evaluation, and of its file
    about: str  # one line describing the conditions
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    data: dict[str, Any]  # everything, as JSON
    scalars: dict[str, float]  # metrics to track across checkpoints


def write(result: EvaluationResult, folder: Path, step: int, epoch: float) -> Path:
    """Write folder/NAME.json, and append a line to evaluations.jsonl."""
    path = folder / f"{result.name}.json"
    text = json.dumps({"step": step, "epoch": epoch, **result.data}, indent=1) + "\n"
    line = json.dumps({"step": step, "epoch": epoch, **result.scalars}) + "\n"
    try:
        write_atomic(path, text, durable=True)
        with open(folder / records.EVALUATIONS, "a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise MillError(f"cannot write {path}: {reason(error)}") from None
    return path


def print_table(result: EvaluationResult) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    first, *others = result.columns
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    for row in result.rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console()
    console.print(printable(result.about, lines=True), highlight=False, markup=False)
    console.print(table)


def percent(share: float) -> str:
    return f"{share:.1%}"
