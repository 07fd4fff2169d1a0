"""Compare methods as their papers do, on made-up scenes and over several seeds.

    python benchmarks/comparisons.py [--only selfie] [--seeds 3] [--json FILE] [key=value ...]

selfie: Selfie is trained without labels, then fine-tuned on 5 % of them. The same network learns
the same subsets by the same schedule from scratch.

The settings that follow apply to all runs. Figures are means and standard deviations over seeds;
differences are taken seed by seed. Runs are stored in --out: a finished run is read, an unfinished
one is resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from patchmill.benchmarks.lib import machine, report, runs, seeds
from patchmill.benchmarks.lib.report import Parser
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.training.config import compose
from patchmill.training.evaluation.reliance import scene_settings

FINETUNE = ("labels=0.05", "baseline=true", "epochs=100")


@dataclass(frozen=True)
class Inputs:
    """Everything that the runs of one seed depend on."""

    out: Path
    seed: int
    tests: int  # scenes to evaluate on
    settings: list[str]  # words of all runs

    def train(self, method: str, *words: str) -> Path:
        folder = self.out / f"{method}-{self.seed}"
        runs.train(folder, *self.words(method, *words))
        return folder

    def evaluate(self, folder: Path, evaluation: str, *words: str) -> dict[str, Any]:
        return runs.evaluate(folder, evaluation, *words, f"data.test={self.test_data(folder)}")

    def test_data(self, folder: Path) -> str:
        """The run's own, with the number of scenes asked for."""
        test = compose.load(folder).data.test
        scenes = scene_settings(test or "")
        if scenes is None:
            raise MillError(f"comparisons need scenes to test on, not {test}: leave out data.test")
        return calls.text("scenes", {**scenes, "count": self.tests})

    def words(self, method: str, *words: str) -> list[str]:
        return [f"method={method}", "scale=demo", *words, *self.settings, f"seed={self.seed}"]


class Comparison(NamedTuple):
    title: str
    data: str  # word of the runs
    columns: dict[str, str]  # of the figures: their titles
    pair: tuple[str, str]  # rows whose difference is shown: the first minus the second
    measure: Callable[[Inputs], dict[str, Figures]]  # a row's name -> its figures


def main(words: Sequence[str] | None = None) -> None:
    arguments = _arguments(words)
    report.check_writable(arguments.json)
    measured: dict[str, list[dict[str, Figures]]] = {name: [] for name in arguments.only}
    with track("comparisons", len(measured) * arguments.seeds, unit="seeds") as advance:
        for name, results in measured.items():
            words = [COMPARISONS[name].data, *arguments.settings]
            for seed in range(arguments.seeds):
                inputs = Inputs(arguments.out, seed, arguments.tests, words)
                results.append(COMPARISONS[name].measure(inputs))
                advance(1)
    print(f"{machine.cpu()}, {machine.cores()} cores; mean ± std of {arguments.seeds} seeds, in %")
    rows = []
    for name, results in measured.items():
        table = summarise(COMPARISONS[name], results)
        print("\n".join(lines(COMPARISONS[name], table)))
        rows += table
    if arguments.json:
        content = {"seeds": arguments.seeds, "tests": arguments.tests, "rows": rows}
        report.write_json(arguments.json, content)


# --------------------------------------------------------------------------------- the comparisons


def _measure_selfie(inputs: Inputs) -> dict[str, Figures]:
    """Subset number `seed` of the labels, and Selfie's run of the same seed."""
    folder = inputs.train("selfie")
    tuned = inputs.evaluate(folder, "finetune", *FINETUNE, f"seeds=[{inputs.seed}]")
    top1 = {title.split(" on ")[0]: scores["top1"] for title, scores in tuned["finetuned"].items()}
    return {
        "supervised": {"accuracy": top1["from scratch"]},
        "selfie": {"accuracy": top1["fine-tuned"]},
    }


COMPARISONS = {
    "selfie": Comparison(
        "Selfie, fine-tuned, against learning from scratch: 5 % of the labels of scenes",
        "data=scenes",
        {"accuracy": "accuracy"},
        ("selfie", "supervised"),
        _measure_selfie,
    ),
}


# --------------------------------------------------------------------------------------- the report


def summarise(
    comparison: Comparison, results: Sequence[Mapping[str, Figures]]
) -> list[dict[str, Any]]:
    """A row for every name, over the results of all seeds, and one for the pair's difference."""
    table = [seeds.row(name, [result[name] for result in results]) for name in results[0]]
    first, second = ([result[name] for result in results] for name in comparison.pair)
    return [*table, seeds.difference(" - ".join(comparison.pair), first, second)]


def lines(comparison: Comparison, table: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"\n{comparison.title}"
    yield f"{'':<20}" + "".join(f"{title:>15}" for title in comparison.columns.values())
    for row in table:
        signed = row is table[-1]
        cells = [seeds.cell(row, column, signed) for column in comparison.columns]
        yield (f"{row['name']:<20}" + "".join(f"{cell:>15}" for cell in cells)).rstrip()


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("comparisons", __doc__, "[key=value ...]")
    parser.add_argument("--only", default=",".join(COMPARISONS), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="runs per method (%(default)s)")
    parser.add_argument("--tests", type=int, default=2000, help="scenes to test on (%(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/comparisons"),
        help="folder of the runs (%(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    arguments = parser.parse_args(words)
    arguments.only = arguments.only.split(",")
    for name in arguments.only:
        if name not in COMPARISONS:
            names = ", ".join(COMPARISONS)
            raise MillError(f"there is no comparison {name}: choose from {names}")
    if arguments.seeds < 1:
        raise MillError("--seeds must be at least 1")
    if arguments.tests < 1:
        raise MillError("--tests must be at least 1")
    return arguments


if __name__ == "__main__":
    run_command(main)
