"""The benchmark of methods reports the results of its runs next to their floors."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from patchmill.benchmarks import methods as benchmark
from patchmill.benchmarks.lib import runs
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose
from patchmill.training.evaluation import reliance
from patchmill.training.runtime import records

SMALL = [
    "data.train=scenes(count=32, size=32)",
    "data.test=scenes(count=16, seed=1, size=32)",
    "train.epochs=2",
    "train.batch_size=8",
    "train.log_every=2",
    "train.workers=1",
]
FLOORS = {"histogram": {"knn": 0.2, "linear": 0.1}, "six numbers": {"knn": 0.12, "linear": 0.3}}


def run(monkeypatch: pytest.MonkeyPatch, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["methods.py", *argv])
    benchmark.main()


def figures(knn: float, linear: float, untrained: tuple[float, float]) -> dict[str, float]:
    """Figures of one seed: kNN and linear accuracies, the same on all tests."""
    found = {"loss_first": 4.0, "loss_last": 2.0}
    for suffix in benchmark.TESTS:
        found |= {f"knn{suffix}": knn, f"linear{suffix}": linear}
        found |= {f"knn{suffix}_untrained": untrained[0], f"linear{suffix}_untrained": untrained[1]}
    return found


def test_rows_hold_the_results_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, json_file = tmp_path / "runs", tmp_path / "out.json"
    argv = ["--methods", "tcr", "--seeds", "1", "--tests", "24", "--jobs", "1"]
    run(monkeypatch, *argv, "--out", str(out), "--json", str(json_file), *SMALL)
    rows = {row["name"]: row for row in json.loads(json_file.read_text())["rows"]}
    assert {"histogram", "six numbers", "untrained test_resnet", "tcr"} < set(rows)
    losses = records.read(out / "tcr-0")["loss"]
    assert rows["tcr"]["loss_first"] == pytest.approx(losses[0], abs=1e-4)
    assert rows["tcr"]["loss_last"] == pytest.approx(losses[-1], abs=1e-4)
    evaluated = json.loads((out / "tcr-0" / "reliance.json").read_text())
    assert evaluated["tests"][reliance.SAME].startswith("scenes(count=24, ")
    for row, scores in (("tcr", "scores"), ("untrained test_resnet", "untrained")):
        for column, metric, test in (
            ("knn", "knn", reliance.SAME),
            ("linear", "ridge", reliance.SAME),
            ("linear_grey", "ridge", reliance.GREY),
            ("linear_hue", "ridge", reliance.HUE),
            ("knn_swapped", "knn", reliance.SWAPPED),
        ):
            assert rows[row][column] == pytest.approx(evaluated[scores][metric][test], abs=1e-4)


def test_gains_and_shares_are_of_equal_seeds() -> None:
    measured = {
        "moco": [figures(0.3, 0.5, (0.1, 0.2)), figures(0.5, 0.7, (0.3, 0.4))],
        "supervised": [figures(0.8, 0.9, (0.1, 0.2)), figures(0.9, 0.9, (0.1, 0.2))],
    }
    networks = {"moco": "test_resnet", "supervised": "test_resnet"}
    table = benchmark.table(measured, networks, FLOORS)
    rows = {row["name"]: row for row in table}
    assert list(rows) == [*FLOORS, "untrained test_resnet", "moco", "supervised"]
    moco = rows["moco"]
    assert moco["seeds"]["knn_gain"] == [0.2, 0.2] and moco["knn_gain_interval"] == 0
    assert rows["untrained test_resnet"]["seeds"]["knn"] == [0.1, 0.3]  # moco's
    # The mean of untrained is 0.2 for kNN, as the histogram's, and 0.3 for linear, as six numbers'
    assert moco["knn_floor"] == "histogram" and rows["supervised"]["linear_floor"] == "six numbers"
    assert moco["seeds"]["knn_share"] == pytest.approx([0.1 / 0.6, 0.3 / 0.7], abs=1e-4)
    assert rows["supervised"]["knn_share"] == 1


def test_the_highest_floor_may_be_the_networks_before_training() -> None:
    measured = {name: [figures(0.7, 0.5, (0.4, 0.2))] for name in ("moco", "supervised")}
    row = benchmark.table(measured, dict.fromkeys(measured, "resnet10t"), FLOORS)[-2]
    assert (row["knn_floor"], row["linear_floor"]) == ("untrained", "six numbers")


def test_without_supervised_there_are_no_shares() -> None:
    measured = {"moco": [figures(0.3, 0.5, (0.1, 0.2))]}
    table = benchmark.table(measured, {"moco": "resnet10t"}, FLOORS)
    assert "knn_share" not in table[-1] and table[-1]["knn_gain"] == pytest.approx(0.2)
    *_, printed = benchmark.lines(table)
    assert printed.split()[:5] == ["moco", "4.000", "2.000", "+20.0", "+30.0"]
    assert printed.endswith("floor: histogram, six numbers")


# ------------------------------------------------------------------------------------ runs together


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the trained runs; results are fake."""
    made: list[str] = []
    lock = threading.Lock()  # Hydra composes one at a time

    def train(folder: Path, *overrides: str) -> None:
        made.append(folder.name)
        folder.mkdir(parents=True)
        with lock:
            config = compose.compose([*overrides, f"out={folder.parent}"])
        compose.save(config, folder)
        (folder / "log.csv").write_text("step,loss\n2,1.5\n3,1.25\n")

    def evaluate(folder: Path, evaluation: str, *overrides: str) -> dict[str, Any]:
        scores = {metric: dict.fromkeys(reliance_tests(), 0.5) for metric in ("knn", "ridge")}
        return {"scores": scores, "untrained": scores}

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "evaluate", evaluate)
    monkeypatch.setattr(benchmark, "floor_figures", lambda *_: FLOORS)
    return made


def reliance_tests() -> list[str]:
    return list(benchmark.TESTS.values())


def test_every_method_is_run_with_every_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    argv = ["--methods", "tcr,moco", "--seeds", "2", "--jobs", "1", "--out", str(tmp_path)]
    run(monkeypatch, *argv)
    assert trained == ["tcr-0", "moco-0", "tcr-1", "moco-1"]


def test_runs_are_trained_in_parallel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    together, train = threading.Barrier(2, timeout=30), runs.train

    def wait(folder: Path, *overrides: str) -> None:
        together.wait()  # fails alone
        train(folder, *overrides)

    monkeypatch.setattr(runs, "train", wait)
    argv = ["--methods", "tcr,moco", "--seeds", "1", "--jobs", "2", "--out", str(tmp_path)]
    run(monkeypatch, *argv)
    assert sorted(trained) == ["moco-0", "tcr-0"]


def test_a_failing_run_is_named_and_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    train = runs.train

    def fail(folder: Path, *overrides: str) -> None:
        if folder.name == "moco-0":
            raise MillError("moco-0 failed: no space left")
        train(folder, *overrides)

    monkeypatch.setattr(runs, "train", fail)
    argv = ["--methods", "tcr,moco,byol", "--seeds", "9", "--jobs", "1", "--out", str(tmp_path)]
    with pytest.raises(MillError, match=r"^moco-0 failed: no space left$"):
        run(monkeypatch, *argv)
    assert trained[0] == "tcr-0" and len(trained) < 9


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--methods", "mocco"], "there is no method mocco: choose from bagssl"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--tests", "0"], "--tests must be at least 1"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--methods", "tcr", "train.epoch=2"], "tcr-0 failed: .*train.epochs"),
    ],
)
def test_errors_are_one_sentence(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MillError, match=message):
        run(monkeypatch, "--out", str(tmp_path), *argv)
