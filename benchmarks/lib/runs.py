"""Runs of `training/`, trained and evaluated by its commands in separate processes.

A finished run is read, an unfinished one is resumed, and an evaluation of one is done once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import write_atomic
from patchmill.training.runtime import run_folder

TRAINING = Path(__file__).resolve().parents[2] / "training"
EVALUATED = "benchmark.json"  # in a run's folder: results, by the overrides of their evaluation


def train(folder: Path, *overrides: str, environment: Mapping[str, str] | None = None) -> None:
    """Train into `folder` by `training/run.py` with these overrides; Ctrl-C ends it as well.

    `environment` is added to that of this process.
    """
    where = (f"out={folder.parent}", f"name={folder.name}")
    _call("run.py", folder.name, *overrides, *where, environment=environment)


def evaluate(folder: Path, evaluation: str, *overrides: str) -> dict[str, Any]:
    """Contents of the file that `training/evaluate.py` writes with these overrides."""
    step = run_folder.read_status(folder).get("step")
    key = " ".join([f"evaluate={evaluation}", *overrides, f"step={step}"])
    results = _read(folder / EVALUATED)
    if key not in results:
        _call("evaluate.py", folder.name, f"run={folder}", f"evaluate={evaluation}", *overrides)
        results[key] = json.loads((folder / f"{evaluation}.json").read_text())
        write_atomic(folder / EVALUATED, json.dumps(results, indent=1) + "\n")
    return results[key]


def _call(
    script: str, name: str, *overrides: str, environment: Mapping[str, str] | None = None
) -> None:
    command = [sys.executable, str(TRAINING / script), *overrides]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MillError(f"{name} failed: {lines[-1].removeprefix('error: ')}")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
