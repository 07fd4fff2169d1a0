"""The contents of a run's folder that a report shows; any of it may be missing or truncated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchmill.loaders.common import plain_yaml
from patchmill.loaders.common.errors import MillError
from patchmill.training.report.curves import Point
from patchmill.training.runtime import records, run_folder
from patchmill.training.runtime.record_files import is_number

__all__ = ["CONFIG", "RunData", "is_number", "numbers", "read"]

CONFIG = "config.yaml"


@dataclass(frozen=True)
class RunData:
    folder: Path
    config: dict[str, Any]
    config_text: str
    status: dict[str, Any]
    log: dict[str, list[float | None]]  # columns
    evaluations: list[dict[str, Any]]
    results: dict[str, Any]  # NAME.json, written by evaluate.py
    pictures: dict[str, Path]  # NAME.png

    def setting(self, path: str) -> Any:
        """Return the value of a setting such as `train.batch_size`; None if it is missing."""
        value: Any = self.config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def points(self, name: str) -> list[Point]:
        """Return a column of the log over epochs, or over steps if epochs were not logged."""
        pairs = zip(self.log.get(self.x_name, []), self.log.get(name, []), strict=False)
        return [Point(x, y) for x, y in pairs if x is not None and y is not None]

    @property
    def x_name(self) -> str:
        return "epoch" if "epoch" in self.log else "step"

    def evaluated(self, name: str) -> list[dict[str, Any]]:
        """Return the evaluations with that metric, in order of step."""
        rows = [row for row in self.evaluations if is_number(row.get(name))]
        return sorted(rows, key=lambda row: row.get("step") or 0)

    def measured(self) -> list[dict[str, Any]]:
        """Return evaluations during training: with kNN accuracy, or without if unlabelled."""
        return self.evaluated("knn") or self.evaluated("rankme_h")


def read(folder: Path) -> RunData:
    """Read a run's folder."""
    folder = Path(folder)
    if not any((folder / name).is_file() for name in (CONFIG, records.LOG, run_folder.STATUS)):
        raise MillError(
            f"{folder} is not a run's folder: it has neither {CONFIG} nor {records.LOG}"
        )
    text = _text(folder / CONFIG)
    return RunData(
        folder,
        _yaml(text),
        text,
        run_folder.read_status(folder),
        records.read(folder),
        records.evaluations(folder),
        {
            path.stem: _json(path)
            for path in _files(folder, "json")
            if path.name != run_folder.STATUS
        },
        {path.stem: path for path in _files(folder, "png")},
    )


def numbers(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _files(folder: Path, ending: str) -> list[Path]:
    """List files with that extension, without hidden ones, which are partially written."""
    return sorted(path for path in folder.glob(f"*.{ending}") if not path.name.startswith("."))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _yaml(text: str) -> dict[str, Any]:
    try:
        content = plain_yaml.load(text)
    except plain_yaml.NotYaml:
        return {}
    return content if isinstance(content, dict) else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError):
        return f"{path.name} cannot be read"
