"""Compile all Triton kernels with every supported Triton for every architecture; needs no GPU.

    python benchmarks/compile_matrix.py [3.4 3.6 3.8 newest] [--architectures 80 90] [--json FILE]

Each Triton is downloaded once, into a folder of its own under build/, and shadows the installed one
while `pytest tests/kernels -k compiled` compiles every kernel and checks its budgets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from patchmill.benchmarks.lib import report
from patchmill.loaders.common.errors import MillError, run_command

ROOT = Path(__file__).resolve().parents[1]
NEWEST = "newest"
TRITONS = ("3.4", "3.6", "3.8", NEWEST)
ARCHITECTURES = (80, 90, 100)  # A100, H100, B200
USAGE = ("registers", "spilled", "shared")  # per thread, bytes per thread, bytes per block


def main(words: Sequence[str] | None = None) -> None:
    settings = _settings(words)
    report.check_writable(settings.json)
    if not (ROOT / "tests" / "kernels").is_dir():
        raise MillError("this benchmark runs tests: run it in a checkout of the project")
    tritons = [fetch(name) for name in settings.tritons]
    rows = []
    print(f"{'':24}", *(f"{name:>9}" for name in ("variants", *USAGE, "failures")))
    for folder in tritons:
        for architecture in settings.architectures:
            name = f"Triton {version(folder)}, sm_{architecture}"
            row = run_tests(folder, architecture)
            rows.append({"name": name, **row})
            cells = *(row[key] for key in ("variants", *USAGE)), len(row["failures"])
            print(f"{name:24}", *(f"{cell:9}" for cell in cells), flush=True)
    if settings.json:
        report.write_json(settings.json, {"rows": rows})
    if failed := sum(len(row["failures"]) for row in rows):
        raise MillError(f"{failed} tests failed: the result names them")


def fetch(name: str) -> Path:
    """Download a Triton unless it is there; returns its folder."""
    folder = ROOT / "build" / f"triton-{name}"
    if not folder.exists():
        wanted = "triton" if name == NEWEST else f"triton=={name}.*"
        partial = folder.with_suffix(".part")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        if subprocess.run([*pip, "--target", partial, wanted]).returncode:
            raise MillError(f"cannot install {wanted} into {partial}: pip says why above")
        partial.rename(folder)
    return folder


def version(folder: Path) -> str:
    return next(folder.glob("triton-*.dist-info")).name.split("-")[1].removesuffix(".dist")


def run_tests(triton: Path, architecture: int) -> dict[str, Any]:
    """Run the tests: the number of variants, the most that one uses, and which tests failed."""
    with tempfile.TemporaryDirectory() as temporary:
        usage, outcomes = Path(temporary, "usage.jsonl"), Path(temporary, "outcomes.xml")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (triton, ROOT))),
            "PATCHMILL_ARCHITECTURES": str(architecture),
            "PATCHMILL_COMPILED": str(usage),
        }
        command = [
            "-m",
            "pytest",
            "tests/kernels",
            "-k",
            "compiled",
            "-q",
            f"--junitxml={outcomes}",
        ]
        run = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if run.returncode not in (0, 1) or not usage.exists():
            raise MillError(f"the tests could not be run with {triton}:\n{run.stdout}{run.stderr}")
        return summary(usage.read_text(), outcomes.read_text())


def summary(usage: str, outcomes: str) -> dict[str, Any]:
    """Row of the matrix, from the JSON lines of `helpers_compile` and the XML of pytest."""
    variants = [json.loads(line) for line in usage.splitlines()]
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in ElementTree.fromstring(outcomes).iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    most = {name: max(each[name] for each in variants) for name in USAGE}
    return {"variants": len(variants), **most, "failures": failed}


def _settings(words: Sequence[str] | None) -> argparse.Namespace:
    parser = report.Parser("compile-matrix", __doc__, "[TRITON ...]")
    parser.add_argument("tritons", nargs="*", default=TRITONS, help="3.4 3.6 3.8 newest")
    parser.add_argument("--architectures", nargs="+", type=int, default=ARCHITECTURES)
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args(words)


if __name__ == "__main__":
    run_command(main)
