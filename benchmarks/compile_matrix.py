"""Compile all Triton kernels with every supported Triton for every architecture; needs no GPU.

    python benchmarks/compile_matrix.py [3.4 3.6 3.8 newest] [--architectures 80 90] [--json FILE]
    python benchmarks/compile_matrix.py 3.8 --folders views --only "resize or blur" --table
    python benchmarks/compile_matrix.py --write

Each Triton is downloaded once, into its own folder under build/, and shadows the installed one
while `pytest tests/kernels -k compiled` compiles every kernel and counts its machine instructions.
A kernel fails if it has more instructions, narrower loads or stores, more spills or fewer resident
warps than its line in tests/kernels/budgets.csv. --table prints all counts next to the budgets,
--write accepts the new counts.
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
from patchmill.benchmarks.lib.machine_code import budgets, matrix
from patchmill.loaders.common.errors import MillError, run_command

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = ROOT / "tests" / "kernels" / "budgets.csv"
NEWEST = "newest"
TRITONS = ("3.4", "3.6", "3.8", NEWEST)
ARCHITECTURES = (80, 90, 100)  # A100, H100, B200
USAGE = ("registers", "spilled", "shared")  # per thread, bytes per thread, bytes per block


def main(argv: Sequence[str] | None = None) -> None:
    settings = _settings(argv)
    report.check_writable(settings.json)
    if not (ROOT / "tests" / "kernels").is_dir():
        raise MillError("this benchmark runs tests: run it in a checkout of the project")
    tritons = [fetch(name) for name in settings.tritons]
    rows, compiled = [], []
    print(f"{'':24}", *(f"{name:>9}" for name in ("variants", *USAGE, "failures")))
    for folder in tritons:
        for architecture in settings.architectures:
            name = f"Triton {version(folder)}, sm_{architecture}"
            usage, outcomes = run_tests(folder, architecture, settings)
            row = summary(usage, outcomes)
            rows.append({"name": name, **row})
            compiled += matrix.compiled(usage)
            cells = *(row[key] for key in ("variants", *USAGE)), len(row["failures"])
            print(f"{name:24}", *(f"{cell:9}" for cell in cells), flush=True)
    table = budgets.read(BUDGETS) if BUDGETS.exists() else {}
    found = matrix.lines(compiled)
    if settings.table:
        matrix.show(found, table)
    everything = not (settings.folders or settings.only)
    if settings.write:
        table = matrix.accepted(found, table, everything)
        budgets.write(BUDGETS, table)
        print(f"{BUDGETS} has {len(found)} new lines")
    beyond = matrix.beyond(compiled, table, everything)
    if settings.json:
        report.write_json(settings.json, {"rows": rows, "beyond budgets": beyond})
    if beyond:
        raise MillError(f"{len(beyond)} beyond their budgets: " + "; ".join(beyond))
    if failed := sum(len(row["failures"]) for row in rows):
        raise MillError(f"{failed} tests failed: the result names them")


def fetch(name: str) -> Path:
    """Download a Triton unless it exists; returns its folder."""
    folder = ROOT / "build" / f"triton-{name}"
    if not folder.exists():
        wanted = "triton" if name == NEWEST else f"triton=={name}.*"
        partial = folder.with_suffix(".part")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        if subprocess.run([*pip, "--target", partial, wanted]).returncode:
            raise MillError(f"cannot install {wanted} into {partial}: see pip's output above")
        partial.rename(folder)
    return folder


def version(folder: Path) -> str:
    return next(folder.glob("triton-*.dist-info")).name.split("-")[1].removesuffix(".dist")


def run_tests(triton: Path, architecture: int, settings: argparse.Namespace) -> tuple[str, str]:
    """Run the tests: JSON lines of `helpers_compile`, and pytest's outcomes in XML."""
    with tempfile.TemporaryDirectory() as temporary:
        usage, outcomes = Path(temporary, "usage.jsonl"), Path(temporary, "outcomes.xml")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (triton, ROOT))),
            "PATCHMILL_ARCHITECTURES": str(architecture),
            "PATCHMILL_COMPILED": str(usage),
        }
        folders = [f"tests/kernels/{name}" for name in settings.folders] or ["tests/kernels"]
        names = f"compiled and ({settings.only})" if settings.only else "compiled"
        marks = ["-m", "not slow"] if settings.write or settings.table else []
        command = ["-m", "pytest", *folders, "-k", names, "-q", f"--junitxml={outcomes}", *marks]
        run = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if run.returncode not in (0, 1) or not usage.exists():
            raise MillError(f"the tests could not be run with {triton}:\n{run.stdout}{run.stderr}")
        return usage.read_text(), outcomes.read_text()


def summary(usage: str, outcomes: str) -> dict[str, Any]:
    """Row of the matrix, from the JSON lines of `helpers_compile` and the XML of pytest."""
    variants = [json.loads(line) for line in usage.splitlines()]
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in ElementTree.fromstring(outcomes).iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    most = {name: max(each[name] for each in variants) for name in USAGE}
    kernels = matrix.by_kernel(matrix.compiled(usage))
    return {"variants": len(variants), **most, "failures": failed, "kernels": kernels}


def _settings(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = report.Parser("compile-matrix", __doc__, "[TRITON ...]")
    parser.add_argument("tritons", nargs="*", default=TRITONS, help="3.4 3.6 3.8 newest")
    parser.add_argument("--architectures", nargs="+", type=int, default=ARCHITECTURES)
    parser.add_argument(
        "--folders", nargs="+", default=[], help="of kernels/, such as views; default: all"
    )
    parser.add_argument("--only", metavar="NAMES", help='tests by name, such as "resize or blur"')
    parser.add_argument("--table", action="store_true", help="print the usual variants' counts")
    parser.add_argument("--write", action="store_true", help="accept the usual variants' counts")
    parser.add_argument("--json", metavar="FILE")
    settings = parser.parse_args(argv)
    if settings.write and not set(ARCHITECTURES) <= set(settings.architectures):
        raise MillError("--write needs all architectures: a budget is the worst of them")
    return settings


if __name__ == "__main__":
    run_command(main)
