"""Run examples in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SAW = re.compile(r"rank (\d) saw images \[(.*?)\]")


def run_python(argv: list[str], folder: Path) -> str:
    """Run Python in `folder`, with the modules there; return what it prints."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def seen_by_ranks(output: str) -> dict[int, list[int]]:
    """Images that each rank says that it saw."""
    return {int(rank): [int(id) for id in ids.split(",")] for rank, ids in SAW.findall(output)}
