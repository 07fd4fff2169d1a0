"""Facts about a machine as JSON: findings of `patchmill doctor`, versions, and the GPU's state.

python -m patchmill.benchmarks.lib.gpu_day.facts [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib import machine
from patchmill.command.doctor import command as doctor
from patchmill.command.doctor.examine import examine
from patchmill.loaders.files.writing import write_atomic

# Groups of probes that matter for a GPU -> timeout in seconds.
GROUPS = {"machine": 20.0, "python": 60.0, "GPU": 60.0, "decoding": 60.0}
# Lines of `nvidia-smi -q` on the GPU's configuration: clocks, slices, engines.
WORDS = ("product name", "driver version", "cuda version", "mig mode", "jpeg", "clocks", "sm  ",
         "memory  ", "performance state", "power limit", "persistence", "ecc mode")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="facts")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args(argv)
    report = examine(GROUPS)
    print("\n".join(doctor.text(report)))
    print("\n".join(state := gpu_state()))
    facts: dict[str, Any] = {"findings": doctor.as_json(report), "gpu_state": state}
    with contextlib.suppress(ImportError):  # of torch
        facts["machine"] = machine.describe()
    if arguments.json:
        write_atomic(Path(arguments.json), json.dumps(facts, indent=1) + "\n")


def gpu_state() -> list[str]:
    """Lines of nvidia-smi on clocks, slices and JPEG engines; empty without nvidia-smi."""
    try:
        done = subprocess.run(["nvidia-smi", "-q"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    return [line for line in lines if any(word.strip() in line.lower() for word in WORDS)]


if __name__ == "__main__":
    main()
