"""The command line shared by all paper scripts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from patchmill.benchmarks.lib import machine, report, seeds
from patchmill.benchmarks.lib.papers import chart, claims
from patchmill.benchmarks.lib.papers.experiment import Experiment
from patchmill.benchmarks.lib.papers.paper import Paper, Rows
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track


def run(paper: Paper, argv: Sequence[str] | None = None) -> None:
    """Train and measure every seed at the chosen budget; print, draw and store the results."""
    arguments = _arguments(paper, argv)
    report.check_writable(arguments.json, arguments.plot)
    if arguments.plot:
        report.check_chart()
    experiment = _experiment(paper, arguments)
    if arguments.plan:
        print("\n".join(experiment.plan()).lstrip("\n"))
        return
    results = _results(experiment)
    rows = table(results)
    judged = [claims.judge(c, results) for c in paper.claims if claims.measured(c, results[0])]
    print("\n".join(_lines(paper, experiment, rows)))
    if judged:
        print("\nDifferences per seed, with 95 % intervals:")
        print("\n".join(claims.lines(judged)))
    if arguments.plot:
        draw = paper.plot or partial(chart.draw, columns=paper.columns, title=paper.title)
        draw(Path(arguments.plot), rows)
    if arguments.json:
        about = {"budget": arguments.budget, "seeds": experiment.budget.seeds}
        content = {**about, "tests": experiment.budget.tests, "rows": rows, "claims": judged}
        report.write_json(arguments.json, content)


def table(results: Sequence[Mapping[str, Figures]]) -> list[dict[str, Any]]:
    """One row of means over seeds per name; a row may lack columns that others have."""
    return [seeds.row(name, [result[name] for result in results]) for name in results[0]]


def _results(experiment: Experiment) -> list[Mapping[str, Figures]]:
    paper, all_seeds = experiment.paper, range(experiment.budget.seeds)
    if paper.prepare:
        paper.prepare(experiment)
    trainings = [(seed, name) for seed in all_seeds for name in experiment.trainings(seed)]
    with track(f"{paper.name}: trainings", len(trainings), unit="runs") as advance:
        for seed, name in trainings:
            experiment.train(seed, name)
            advance(1)
    results = []
    with track(f"{paper.name}: evaluations", len(all_seeds), unit="seeds") as advance:
        for seed in all_seeds:
            results.append(paper.measure(experiment, seed))
            advance(1)
    return results


def _lines(paper: Paper, experiment: Experiment, rows: Rows) -> Iterator[str]:
    yield f"{machine.cpu()}, {machine.cores()} cores"
    yield f"{paper.title}: mean ± std of {experiment.budget.seeds} seeds, in %\n"
    wide = max(len(row["name"]) for row in rows) + 2
    yield " " * wide + "".join(f"{title:>15}" for title in paper.columns.values())
    for row in rows:
        cells = "".join(f"{seeds.cell(row, column):>15}" for column in paper.columns)
        yield f"{row['name']:<{wide}}{cells}".rstrip()


def _experiment(paper: Paper, arguments: argparse.Namespace) -> Experiment:
    budget = paper.budgets[arguments.budget]
    for name in ("seeds", "tests"):
        if (count := getattr(arguments, name)) is not None:
            if count < 1:
                raise MillError(f"--{name} must be at least 1")
            budget = replace(budget, **{name: count})
    out = arguments.out or Path("runs", "papers", f"{paper.name}-{arguments.budget}")
    settings = list(arguments.settings)
    if paper.added:
        settings += paper.added(arguments.budget, arguments.settings)
    return Experiment(paper, budget, out, settings)


def _arguments(paper: Paper, argv: Sequence[str] | None) -> argparse.Namespace:
    docstring = sys.modules[paper.measure.__module__].__doc__
    parser = report.Parser(f"papers/{paper.name}", docstring, "[key=value ...]")
    parser.add_argument(
        "--budget",
        choices=paper.budgets,
        default="cpu",
        help="cpu: half an hour on two cores; gpu: ten minutes on one; paper: as published",
    )
    parser.add_argument("--seeds", type=int, help="runs of every row; default: the budget's")
    parser.add_argument("--tests", type=int, help="scenes to test on; default: the budget's")
    parser.add_argument(
        "--out", type=Path, help=f"folder of the runs (runs/papers/{paper.name}-BUDGET)"
    )
    parser.add_argument("--plan", action="store_true", help="print the trainings, run nothing")
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--plot", metavar="FILE", help="draw them here; needs matplotlib")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    return parser.parse_intermixed_args(argv)
