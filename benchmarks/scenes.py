"""Verify that synthetic scenes test learning: chance level from colours, far more with labels.

    python benchmarks/scenes.py [--seeds 3] [--json FILE] [key=value ...]

Uses the scenes of data=scenes, whose objects' colours are independent of the class (colour_bias=0),
and the same scenes with the colours of their classes (colour_bias=1). Measures the floors of
benchmarks/lib/floors.py, and kNN and a linear classifier on features of a network before training
and after supervised training at colour_bias=0. Figures of networks are means over seeds, with
standard deviations. Further settings apply to all runs, which are stored in --out: a finished run
is read, an unfinished one is resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib import floors, machine, report, runs, seeds
from patchmill.benchmarks.lib.report import Parser
from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.training.config import compose
from patchmill.training.evaluation.reliance import scene_settings

BIASES = (0.0, 1.0)
COLUMNS = {
    "six_numbers": "six numbers",
    "histogram": "histogram",
    "centre_histogram": "of the centre",
    "grey_pixels": "grey pixels",
    "untrained": "untrained kNN",
    "untrained_linear": "linear",
    "supervised": "supervised kNN",
    "supervised_linear": "linear",
}


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    report.check_writable(arguments.json)
    folders = []
    with track("runs", arguments.seeds) as advance:
        for seed in range(arguments.seeds):
            folders.append(arguments.out / f"supervised-{seed}")
            shown = ("method=supervised", "data=scenes", "scale=demo")
            runs.train(folders[-1], *shown, *arguments.settings, f"seed={seed}")
            advance(1)
    rows = [measure(folders, bias) for bias in BIASES]
    print(f"{machine.cpu()}, {machine.cores()} cores; mean ± std of {arguments.seeds} seeds, in %")
    print(f"{'':<16}" + "".join(f"{title:>16}" for title in COLUMNS.values()))
    for row in rows:
        cells = "".join(f"{seeds.cell(row, column):>16}" for column in COLUMNS)
        print(f"{row['name']:<16}{cells}")
    if arguments.json:
        report.write_json(arguments.json, {"seeds": arguments.seeds, "rows": rows})


def measure(folders: Sequence[Path], bias: float) -> dict[str, Any]:
    """Floors of the runs' scenes with this colour_bias, and their networks' figures on them."""
    train, test = (_coloured(text, bias) for text in _data(folders[0]))
    accuracies = floors.knn_accuracies(train, test)
    figures = [_figures(folder, train, test) for folder in folders]
    row = seeds.row(f"colour_bias={bias:g}", figures)
    return {
        "name": row.pop("name"),
        "train": train,
        "test": test,
        **{name: round(accuracy, 4) for name, accuracy in accuracies.items()},
        **row,
    }


def _figures(folder: Path, train: str, test: str) -> dict[str, float]:
    data = (f"data.train={train}", f"data.test={test}")
    measured = runs.evaluate(folder, "online", *data)["figures"]
    return {
        "untrained": measured["before training"]["knn"],
        "untrained_linear": measured["before training"]["linear_online"],
        "supervised": measured["after training"]["knn"],
        "supervised_linear": measured["after training"]["linear_online"],
    }


def _data(folder: Path) -> tuple[str, str]:
    data = compose.load(folder).data
    return data.train, data.test or ""


def _coloured(text: str, bias: float) -> str:
    scenes: Mapping[str, Any] | None = scene_settings(text)
    if scenes is None:
        raise MillError(f"the data must be scenes, not {text}: omit data.train and data.test")
    return calls.text("scenes", {**scenes, **({"colour_bias": bias} if bias else {})})


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("scenes", __doc__, "[key=value ...]")
    parser.add_argument("--seeds", type=int, default=3, help="runs (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/scenes"), help="folder of the runs (%(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.seeds < 1:
        raise MillError("--seeds must be at least 1")
    return arguments


if __name__ == "__main__":
    run_command(main)
