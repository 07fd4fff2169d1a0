"""Train every method at the demo scale, and compare its network with simpler baselines.

    python benchmarks/methods.py [--methods moco,simclr] [--seeds 3] [--jobs 2] [--json FILE]
                                 [key=value ...]

Each run is `training/run.py method=METHOD data=scenes scale=demo seed=SEED`; further settings apply
to all runs. --jobs runs are trained in parallel, on one thread each. Runs are stored in --out: a
finished run is read, an unfinished one is resumed.

Accuracies are those of kNN and of a linear classifier, fitted in closed form, on h of one view of
each image. The linear classifier is also tested on grey images, on images with randomly rotated
hues and on other backgrounds. Floors are the networks before training, and features without
information on shapes (`benchmarks/lib/floors.py`).

The gain is the difference from the run's own network before training. The share is
(accuracy - floor) / (supervised - floor), where the floor is the highest of all and `supervised`
is the run with the same seed. Figures are means over seeds with half of their 95 % interval by
Student's t; gains and shares are computed per seed.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from patchmill.benchmarks.lib import floors, machine, report, runs, seeds
from patchmill.benchmarks.lib.report import Parser
from patchmill.benchmarks.lib.seeds import Figures
from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import available_cores
from patchmill.training.config import compose, overrides
from patchmill.training.evaluation import online, reliance
from patchmill.training.evaluation.features import Features
from patchmill.training.runtime import records

# The same networks as moco and dino, with a head of one layer and with a ResNet
LEFT_OUT = ("moco_v1", "dino_resnet")
SUPERVISED = "supervised"
OVERRIDES = ("evaluate.knn_every=0", "log.tensorboard=false")  # evaluated after training
CLASSIFIERS = {"knn": "kNN", "linear": "linear"}
TESTS = {
    "": reliance.SAME,
    "_grey": reliance.GREY,
    "_hue": reliance.HUE,
    "_swapped": reliance.SWAPPED,
    "_alone": reliance.ALONE,
}
ACCURACIES = {
    "knn": "kNN",
    "linear": "linear",
    "linear_grey": "grey",
    "linear_hue": "random hue",
    "linear_swapped": "swapped",
}
GAINS = {
    "knn_gain": "kNN gain",
    "knn_share": "share",
    "linear_gain": "linear gain",
    "linear_share": "share",
}

Results = Sequence[Figures]  # one per seed


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    report.check_writable(arguments.json)
    measured = measure(arguments)
    folders = {method: arguments.out / f"{method}-0" for method in measured}
    networks = {method: compose.load(folder).model.name for method, folder in folders.items()}
    heights = floor_figures(next(iter(folders.values())), arguments.tests)
    rows = table(measured, networks, heights)
    print(f"{machine.cpu()}, {machine.cores()} cores; {arguments.seeds} seeds, in %\n")
    print("\n".join(lines(rows)))
    if arguments.json:
        about = {"seeds": arguments.seeds, "tests": arguments.tests}
        report.write_json(arguments.json, {**about, "rows": rows})


# -------------------------------------------------------------------------------------- the figures


def measure(arguments: argparse.Namespace) -> dict[str, list[Figures]]:
    """Figures of every seed by method, from runs that are trained in parallel."""
    tasks = [(method, seed) for seed in range(arguments.seeds) for method in arguments.methods]
    if arguments.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    with (
        track("runs", len(tasks), unit="runs") as advance,
        ThreadPoolExecutor(arguments.jobs) as pool,
    ):
        futures = {task: pool.submit(run, arguments, *task) for task in tasks}
        for future in futures.values():
            future.add_done_callback(lambda done: advance(1))
        try:
            wait(futures.values(), return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # runs that have not started
    for future in futures.values():
        if not future.cancelled():
            future.result()
    return {
        method: [futures[method, seed].result() for seed in range(arguments.seeds)]
        for method in arguments.methods
    }


def run(arguments: argparse.Namespace, method: str, seed: int) -> Figures:
    """Train and evaluate one run; a finished one is read, an unfinished one resumed."""
    folder = arguments.out / f"{method}-{seed}"
    settings = (*OVERRIDES, *arguments.settings, f"seed={seed}")
    runs.train(folder, f"method={method}", "data=scenes", "scale=demo", *settings)
    losses = [loss for loss in records.read(folder)["loss"] if loss is not None]
    changed = ("probe=ridge", "untrained=true", f"data.test={test_data(folder, arguments.tests)}")
    found = runs.evaluate(folder, "reliance", *changed)
    return {"loss_first": losses[0], "loss_last": losses[-1]} | {
        f"{classifier}{suffix}{when}": scores[name][test]
        for when, scores in (("", found["scores"]), ("_untrained", found["untrained"]))
        for classifier, name in (("knn", "knn"), ("linear", "ridge"))
        for suffix, test in TESTS.items()
    }


def test_data(folder: Path, tests: int) -> str | None:
    """Test data of the run, with this many images if they are synthetic scenes."""
    test = compose.load(folder).data.test
    scenes = reliance.scene_settings(test or "")
    return test if scenes is None else calls.text("scenes", {**scenes, "count": tests})


def floor_figures(folder: Path, tests: int) -> dict[str, Figures]:
    """Accuracies of features without information on shapes, on the data of a run."""
    config = compose.load(folder)
    test = test_data(folder, tests)
    assert test is not None, "the run was evaluated"
    by_knn = floors.knn_accuracies(config.data.train, test, config.evaluate.k)
    (bank, labels), (queries, expected) = (floors.describe(d) for d in (config.data.train, test))
    return {
        name.replace("_", " "): {
            "knn": accuracy,
            "linear": online.linear_accuracy(
                _features(bank[name], labels), _features(queries[name], expected)
            ),
        }
        for name, accuracy in by_knn.items()
    }


def _features(rows: torch.Tensor, labels: torch.Tensor) -> Features:
    return Features(rows, labels, torch.arange(len(rows)))


# ---------------------------------------------------------------------------------------- the table


def table(
    measured: Mapping[str, Results], networks: Mapping[str, str], floors: Mapping[str, Figures]
) -> list[dict[str, Any]]:
    """Rows of the floors, of every network before training, and of the methods.

    `networks` maps each method to its network's name; an untrained one is read from the first
    method that uses it.
    """
    first = {network: method for method, network in reversed([*networks.items()])}
    return [
        *(seeds.row(name, [figures]) for name, figures in floors.items()),
        *(
            seeds.row(f"untrained {network}", [_untrained(one) for one in measured[method]])
            for network, method in reversed([*first.items()])
        ),
        *(_method_row(method, results, measured, floors) for method, results in measured.items()),
    ]


def _untrained(figures: Figures) -> Figures:
    return {
        f"{classifier}{suffix}": figures[f"{classifier}{suffix}_untrained"]
        for classifier in CLASSIFIERS
        for suffix in TESTS
    }


def _method_row(
    method: str,
    results: Results,
    measured: Mapping[str, Results],
    floors: Mapping[str, Figures],
) -> dict[str, Any]:
    rows = [dict(figures) for figures in results]
    names = {}
    for classifier in CLASSIFIERS:
        name, heights = _floor(classifier, results, floors)
        names[f"{classifier}_floor"] = name
        for row, height, best in zip(rows, heights, measured.get(SUPERVISED, rows), strict=True):
            row[f"{classifier}_gain"] = row[classifier] - row[f"{classifier}_untrained"]
            if SUPERVISED in measured:
                rise = best[classifier] - height
                row[f"{classifier}_share"] = (row[classifier] - height) / rise
    return {**seeds.row(method, rows), **names}


def _floor(
    classifier: str, results: Results, floors: Mapping[str, Figures]
) -> tuple[str, list[float]]:
    """The floor with the highest mean over seeds: its name, and its figure for every seed."""
    heights = {name: [figures[classifier]] * len(results) for name, figures in floors.items()}
    heights["untrained"] = [figures[f"{classifier}_untrained"] for figures in results]
    return max(heights.items(), key=lambda item: statistics.mean(item[1]))


def lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Accuracies of all rows, then the gains of the methods."""
    wide = max(len(row["name"]) for row in rows) + 2
    yield "accuracy of kNN and of a linear classifier in closed form; of that one on other tests"
    yield _line("", ACCURACIES.values(), wide)
    for row in rows:
        yield _line(row["name"], (_cell(row, column) for column in ACCURACIES), wide)
    yield "\ngain over the network before training, and share of supervised's gain over the floor"
    yield _line("", ("loss", "last", *GAINS.values()), wide)
    for row in rows:
        if "loss_first" in row:
            losses = (f"{row[column]:.3f}" for column in ("loss_first", "loss_last"))
            gains = (_cell(row, column, signed=column.endswith("gain")) for column in GAINS)
            floors = ", ".join(sorted({row[f"{classifier}_floor"] for classifier in CLASSIFIERS}))
            yield _line(row["name"], (*losses, *gains), wide) + f"  floor: {floors}"


def _line(name: str, cells: Iterable[str], wide: int) -> str:
    return (f"{name:<{wide}}" + "".join(f"{cell:>14}" for cell in cells)).rstrip()


def _cell(row: Mapping[str, Any], column: str, signed: bool = False) -> str:
    return seeds.cell(row, column, signed, spread="interval")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    methods = overrides.choices("method")
    usual = [method for method in methods if method not in LEFT_OUT]
    parser = Parser("methods", __doc__, "[key=value ...]")
    parser.add_argument("--methods", default=",".join(usual), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="runs per method (%(default)s)")
    parser.add_argument("--tests", type=int, default=2000, help="scenes to test on (%(default)s)")
    parser.add_argument(
        "--jobs", type=int, help="runs in parallel; by default one per core, or one on a GPU"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/methods"), help="folder of the runs (%(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    arguments = parser.parse_intermixed_args(argv)
    arguments.methods = arguments.methods.split(",")
    for method in arguments.methods:
        if method not in methods:
            raise MillError(f"there is no method {method}: choose from {', '.join(methods)}")
    if arguments.jobs is None:
        arguments.jobs = 1 if torch.cuda.is_available() else available_cores()
    for name in ("seeds", "tests", "jobs"):
        if getattr(arguments, name) < 1:
            raise MillError(f"--{name} must be at least 1")
    return arguments


if __name__ == "__main__":
    run_command(main)
