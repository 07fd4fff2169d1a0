"""What a run's folder holds, whole or not: a run may be under way, or have been killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from patchmill.loaders.common.errors import MillError
from patchmill.training.report.curves import Point
from patchmill.training.runtime import records, run_folder

Thing = TypeVar("Thing")

CONFIG = "config.yaml"


@dataclass(frozen=True)
class Found:
    folder: Path
    config: dict[str, Any]
    config_text: str
    status: dict[str, Any]
    log: dict[str, list[float | None]]  # columns
    evaluations: list[dict[str, Any]]
    results: dict[str, Any]  # NAME.json, as evaluate.py writes them
    pictures: dict[str, Path]  # NAME.png

    def setting(self, path: str) -> Any:
        """`train.batch_size`; None where it is not known."""
        at: Any = self.config
        for key in path.split("."):
            at = at.get(key) if isinstance(at, dict) else None
        return at

    def points(self, name: str) -> list[Point]:
        """A column of the log by epochs, or by steps where epochs were not logged."""
        pairs = zip(self.log.get(self.x, []), self.log.get(name, []), strict=False)
        return [Point(x, y) for x, y in pairs if x is not None and y is not None]

    @property
    def x(self) -> str:
        return "epoch" if "epoch" in self.log else "step"

    def evaluated(self, name: str) -> list[dict[str, Any]]:
        """The evaluations that measured it, in the order of steps."""
        rows = [row for row in self.evaluations if _is_number(row.get(name))]
        return sorted(rows, key=lambda row: row.get("step") or 0)


def look(folder: Path) -> Found:
    folder = Path(folder)
    if not any((folder / name).is_file() for name in (CONFIG, records.LOG, run_folder.STATUS)):
        raise MillError(
            f"{folder} is not the folder of a run: it holds neither {CONFIG} nor {records.LOG}"
        )
    text = _text(folder / CONFIG)
    return Found(
        folder,
        _mapping(text),
        text,
        run_folder.read(folder),
        _recorded(records.read, folder, records.LOG),
        _recorded(records.evaluations, folder, records.EVALUATIONS),
        {
            path.stem: _parsed(path)
            for path in _files(folder, "json")
            if path.name != run_folder.STATUS
        },
        {path.stem: path for path in _files(folder, "png")},
    )


def numbers(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _recorded(read: Callable[[Path], Thing], folder: Path, name: str) -> Thing:
    try:
        return read(folder)
    except ValueError as error:
        raise MillError(
            f"{folder / name} is not as training wrote it ({error}): mend it, or remove it to have "
            "a report without"
        ) from None


def _files(folder: Path, ending: str) -> list[Path]:
    """But those that are half written, which begin with a dot."""
    return sorted(it for it in folder.glob(f"*.{ending}") if not it.name.startswith("."))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mapping(text: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _parsed(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError:
        return f"{path.name} cannot be read"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
