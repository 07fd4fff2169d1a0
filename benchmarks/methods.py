"""Train every method at the scale of the demo, and compare its network before and after.

    python benchmarks/methods.py [--methods moco,simclr] [--seeds 1] [--json FILE] [key=value ...]

Each run is `training/run.py method=METHOD data=scenes scale=demo seed=SEED`, one after the other;
the settings that follow apply to all runs. Runs are stored in --out: a finished run is read, an
unfinished one is resumed.

Figures are means over seeds, with their standard deviations: accuracies of kNN in evaluate.space
and of a linear classifier on h, both on one view of each image, and losses at the first and the
last logged step.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from patchmill.benchmarks.lib import machine, report, runs, seeds
from patchmill.benchmarks.lib.report import Parser
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.training.config import overrides
from patchmill.training.runtime import records

COLUMNS = {
    "knn_untrained": "kNN untrained",
    "knn_trained": "trained",
    "linear_untrained": "linear untr.",
    "linear_trained": "trained",
}


def main(words: Sequence[str] | None = None) -> None:
    arguments = _arguments(words)
    report.check_writable(arguments.json)
    rows = []
    with track("runs", len(arguments.methods) * arguments.seeds) as advance:
        for method in arguments.methods:
            results = []
            for seed in range(arguments.seeds):
                results.append(run(arguments.out, method, seed, arguments.settings))
                advance(1)
            rows.append(seeds.row(method, results))
    print(f"{machine.cpu()}, {machine.cores()} cores; mean ± std of {arguments.seeds} seeds, in %")
    print(f"{'':<12}{'loss':>10}{'last':>10}" + "".join(f"{t:>14}" for t in COLUMNS.values()))
    for row in rows:
        accuracies = "".join(f"{seeds.cell(row, column):>14}" for column in COLUMNS)
        losses = f"{row['loss_first']:>10.3f}{row['loss_last']:>10.3f}"
        print(f"{row['name']:<12}{losses}{accuracies}")
    if arguments.json:
        report.write_json(arguments.json, {"seeds": arguments.seeds, "rows": rows})


def run(out: Path, method: str, seed: int, settings: Sequence[str]) -> dict[str, float]:
    """Train one run, or read or resume it; returns its first and last losses and accuracies."""
    folder = out / f"{method}-{seed}"
    runs.train(folder, f"method={method}", "data=scenes", "scale=demo", *settings, f"seed={seed}")
    losses = [loss for loss in records.read(folder)["loss"] if loss is not None]
    measured = [row for row in records.evaluations(folder) if "linear_online" in row]
    before, after = measured[0], measured[-1]
    return {
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "knn_untrained": before["knn"],
        "knn_trained": after["knn"],
        "linear_untrained": before["linear_online"],
        "linear_trained": after["linear_online"],
    }


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    methods = overrides.choices("method")
    parser = Parser("methods", __doc__, "[key=value ...]")
    parser.add_argument("--methods", default=",".join(methods), help="default: all")
    parser.add_argument("--seeds", type=int, default=1, help="runs per method (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/methods"), help="folder of the runs (%(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    arguments = parser.parse_args(words)
    arguments.methods = arguments.methods.split(",")
    for method in arguments.methods:
        if method not in methods:
            raise MillError(f"there is no method {method}: choose from {', '.join(methods)}")
    if arguments.seeds < 1:
        raise MillError("--seeds must be at least 1")
    return arguments


if __name__ == "__main__":
    run_command(main)
