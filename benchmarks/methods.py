"""What every method learns at the scale of the demo, beside its untrained network.

    python benchmarks/methods.py [--methods moco,simclr] [--seeds 1] [--json FILE] [key=value ...]

Each run is `training/run.py method=METHOD data=scenes scale=demo seed=SEED`, one after the other;
settings that follow go to all of them. Runs stay in --out, and a run that is there already is read
or gone on with.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib import machine, report
from patchmill.benchmarks.lib.report import Parser
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.training.config import overrides
from patchmill.training.runtime import records

RUN = Path(__file__).resolve().parents[1] / "training" / "run.py"


def main() -> None:
    given = _arguments()
    report.check_writable(given.json)
    rows = []
    with track("runs", len(given.methods) * given.seeds) as advance:
        for method in given.methods:
            found = []
            for seed in range(given.seeds):
                found.append(run(given.out, method, seed, given.settings))
                advance(1)
            rows.append(_row(method, found))
    print(f"{machine.cpu()}, {machine.cores()} cores; medians of {given.seeds} seeds")
    print(f"{'':<12}{'loss':>10}{'at last':>10}{'kNN untrained':>16}{'trained':>10}")
    for row in rows:
        print(
            f"{row['name']:<12}{row['loss_first']:>10.3f}{row['loss_last']:>10.3f}"
            f"{row['knn_untrained']:>16.1%}{row['knn_trained']:>10.1%}"
        )
    if given.json:
        report.write_json(given.json, {"seeds": given.seeds, "rows": rows})


def run(out: Path, method: str, seed: int, settings: Sequence[str]) -> dict[str, float]:
    """The figures of one run."""
    folder = out / f"{method}-{seed}"
    words = [f"method={method}", "data=scenes", "scale=demo", *settings, f"seed={seed}"]
    command = [sys.executable, str(RUN), *words, f"out={out}", f"name={folder.name}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MillError(f"{method} does not run: {said[-1].removeprefix('error: ')}")
    losses = records.read(folder)["loss"]
    looked = [row["knn"] for row in records.evaluations(folder) if "knn" in row]
    return {
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "knn_untrained": looked[0],
        "knn_trained": looked[-1],
    }


def _row(method: str, found: Sequence[dict[str, float]]) -> dict[str, Any]:
    figures = {key: statistics.median(it[key] for it in found) for key in found[0]}
    return {"name": method} | {key: round(value, 4) for key, value in figures.items()}


def _arguments() -> argparse.Namespace:
    methods = overrides.choices("method")
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(methods), help="all of them by default")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"), help="their folder")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    given = parser.parse_args()
    given.methods = given.methods.split(",")
    for method in given.methods:
        if method not in methods:
            raise MillError(f"there is no method {method}: choose among {', '.join(methods)}")
    if given.seeds < 1:
        raise MillError("--seeds must be at least 1")
    return given


if __name__ == "__main__":
    run_command(main)
