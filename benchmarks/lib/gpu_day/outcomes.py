"""Outcomes of tests, one per line of a file written by `plugin.py`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

FILE = "PATCHMILL_OUTCOMES"  # the environment variable that names the file
SHARD = "PATCHMILL_SHARD"  # "2/16": the third of sixteen processes, which share the tests


def read(path: Path) -> list[dict[str, Any]]:
    """All outcomes in the file; a truncated line is skipped."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def counts(outcomes: list[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(each["outcome"] for each in outcomes))
