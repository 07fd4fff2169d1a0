"""Cache of scores that an evaluation has computed, so that repeating or resuming it is cheap."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import write_atomic
from patchmill.training.ranks import distributed

Value = TypeVar("Value")


def cached(path: Path, key: str, compute: Callable[[], Value]) -> Value:
    """Return the value of `compute()`, read from a JSON file of values or added to it.

    The key includes everything that the value depends on.
    """
    values = distributed.gather_objects(_read(path))[0]  # rank 0's, so that all do the same
    if key not in values:
        values[key] = compute()
        if distributed.current().rank == 0:
            _write(path, values)
    return values[key]


def on_rank_0(compute: Callable[[], Value]) -> Value:
    """Compute a value on rank 0, return it on all ranks; a MillError is raised on all of them."""
    value, message = None, ""
    if distributed.current().rank == 0:
        try:
            value = compute()
        except MillError as error:
            message = str(error)
    value, message = distributed.gather_objects((value, message))[0]
    if message:
        raise MillError(message)
    return value  # type: ignore[return-value]  # rank 0's, None only if it failed


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, json.dumps(values, indent=1) + "\n", durable=True)
    except OSError as error:
        raise MillError(f"cannot write {path}: {error.strerror or error}") from None
