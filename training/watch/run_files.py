"""Read a run's folder: only regular files, and none of their contents is trusted."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from patchmill.loaders.common import plain_yaml
from patchmill.training.config import compose
from patchmill.training.runtime import records, run_folder
from patchmill.training.runtime.record_files import is_number

LARGEST = 32 * 2**20  # bytes of a file that is read at once
MOST_EVALUATIONS = 2000
MOST_BAD = 200  # entries of ledgers that are shown
SIGNS = (run_folder.STATUS, records.LOG, compose.FILE)  # a folder with any of these is a run's


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file; OSError for links, pipes, devices and missing files."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{path} is not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read(path: Path) -> bytes:
    """Contents of a regular file of bounded size; OSError if there is none."""
    with open_regular(path) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(f"{path} is too large")
    return data


def text(path: Path) -> str:
    """Text of a regular file; empty if there is none."""
    try:
        return read(path).decode("utf-8", "replace")
    except OSError:
        return ""


def status(folder: Path) -> dict[str, Any]:
    return run_folder.parse_status(text(folder / run_folder.STATUS).encode())


def settings(folder: Path) -> dict[str, Any]:
    """The run's settings by dotted names: `{"optim.lr": 0.03}`; empty if they cannot be read."""
    try:
        content = plain_yaml.load(text(folder / compose.FILE))
    except plain_yaml.NotYaml:
        return {}
    return dict(_flat(content, "")) if isinstance(content, dict) else {}


def evaluations(folder: Path) -> list[dict[str, float]]:
    """Results of all evaluations, or of evenly spaced ones, in the order of steps."""
    rows = [_json(line) for line in text(folder / records.EVALUATIONS).splitlines()]
    known = [
        {key: value for key, value in row.items() if is_number(value)}
        for row in rows
        if isinstance(row, dict) and is_number(row.get("step"))
    ]
    known.sort(key=lambda row: row["step"])
    if len(known) <= MOST_EVALUATIONS:
        return known
    last = len(known) - 1
    return [known[round(i * last / (MOST_EVALUATIONS - 1))] for i in range(MOST_EVALUATIONS)]


def ledgers(folder: Path) -> list[str]:
    """Names of all ranks' ledgers."""
    names = _names(folder)
    return sorted(n for n in names if n.startswith("ledger-rank") and n.endswith(".jsonl"))


def ledger(folder: Path) -> list[dict[str, Any]]:
    """Samples that a rank could not read: `{"id": 3, "where": ..., "reason": ...}`, each once."""
    entries: dict[int, dict[str, Any]] = {}
    for name in ledgers(folder):
        for line in text(folder / name).splitlines():
            entry = _json(line)
            if isinstance(entry, dict) and isinstance(entry.get("id"), int):
                entries.setdefault(entry["id"], entry)
    return list(entries.values())


def pictures(folder: Path) -> list[str]:
    """Names of the PNG files in the folder itself, without hidden ones, which are incomplete."""
    names = [name for name in _names(folder) if name.endswith(".png") and name[0] != "."]
    return sorted(names, key=lambda name: (name != "views.png", name))


def clean(value: Any) -> Any:
    """Plain data for JSON, with None for numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value if isinstance(value, str | int | bool | None) else str(value)


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []


def _json(content: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _flat(content: Mapping[Any, Any], prefix: str) -> Any:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", clean(value)
