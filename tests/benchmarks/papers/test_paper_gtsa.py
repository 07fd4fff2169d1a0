"""GTSA against DINO: equal training, ablations of one loss each, and all tasks."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from patchmill.benchmarks.lib import runs
from patchmill.benchmarks.lib.papers import Experiment
from patchmill.benchmarks.papers import gtsa
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import command_line, compose
from patchmill.training.config.recipes import training_recipe
from patchmill.training.config.settings import Config
from patchmill.training.evaluation.registry import EVALUATIONS

# kNN, linear, mIoU and box AP of every run of seed 0; AP only where it is measured
FIGURES = {
    "untrained": (0.12, 0.15, 0.08, 0.01),
    "dino": (0.20, 0.25, 0.12, 0.04),
    "gtsa": (0.30, 0.40, 0.20, 0.09),
    "gtsa-no-crop": (0.18, 0.22, 0.10),
    "gtsa-no-match": (0.29, 0.38, 0.19),
    "gtsa-no-rotation": (0.25, 0.35, 0.18),
}


@cache
def configs(budget: str) -> dict[str, Config]:
    size = gtsa.BUDGETS[budget]
    return {
        name: compose.compose([*size.overrides, *overrides])
        for name, overrides in gtsa.trainings(size, 0).items()
    }


@pytest.mark.parametrize("budget", ["cpu", "gpu", "paper"])
def test_dino_has_the_network_the_length_and_the_views_of_gtsa(budget: str) -> None:
    made = configs(budget)
    one, other = made["gtsa"], made["dino"]
    assert one.method_name == "gtsa" and other.method_name == "dino"
    assert one.data == other.data and one.size == other.size and one.train == other.train
    assert one.evaluate == other.evaluate and one.evaluate.knn_every == one.train.epochs
    assert one.model.pool == "mean" and other.model.pool == "token"
    assert one.model == replace(other.model, pool="mean")
    views = [[(v.name, v.size, v.total) for v in training_recipe(c).views] for c in (one, other)]
    assert views[0] == views[1]


@pytest.mark.parametrize("budget", ["cpu", "gpu", "paper"])
def test_each_other_run_lacks_one_loss_and_differs_in_nothing_else(budget: str) -> None:
    made = configs(budget)
    whole = made["gtsa"]
    assert {name for name in made if name.startswith("gtsa-")} == {
        f"gtsa-no-{loss}" for loss in ("crop", "match", "rotation")
    }
    for loss in ("crop", "match", "rotation"):
        assert getattr(whole.method, loss) > 0
        without = replace(whole, method=replace(whole.method, **{loss: 0.0}))
        assert made[f"gtsa-no-{loss}"] == without


@pytest.mark.parametrize("budget", ["cpu", "gpu", "paper"])
def test_words_fit_the_evaluations(budget: str) -> None:
    """Settings that an evaluation does not have would fail after hours of training."""
    size = gtsa.BUDGETS[budget]
    for name, overrides in (("segment", size.segment), ("detect", size.detect)):
        texts = command_line.split([w for w in overrides if not w.startswith("data.")])
        settings = command_line.parse(EVALUATIONS[name].settings, texts)
        assert set(texts) <= set(vars(settings))


def experiment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Experiment, list[Any]]:
    """A finished one: runs as written by training, and evaluations that only record requests."""
    asked: list[Any] = []
    size = gtsa.BUDGETS["cpu"]
    made = Experiment(gtsa.PAPER, size, folder)
    for name, config in configs("cpu").items():
        run = made.folder(name, 0)
        run.mkdir()
        compose.save(config, run)
        rows = [
            {"step": 1, "knn": figures[0], "linear_online": figures[1]}
            for figures in (FIGURES["untrained"], FIGURES[name])
        ]
        (run / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def evaluate(run: Path, evaluation: str, *overrides: str) -> dict[str, Any]:
        name = run.name.removesuffix("-0")
        asked.append((name, evaluation, overrides))
        shown = {"trained": name} | (
            {"untrained": "untrained"} if "untrained=true" in overrides else {}
        )
        if evaluation == "segment":
            return {
                "backbones": {w: {"mIoU": FIGURES[n][2], "aAcc": 0.9} for w, n in shown.items()}
            }
        assert evaluation == "detect"
        return {
            "networks": {
                when: {"box": {"ap": FIGURES[n][3], "ap50": 0.5}, "mask": {"ap": 0.4}}
                for when, n in shown.items()
            }
        }

    monkeypatch.setattr(runs, "evaluate", evaluate)
    monkeypatch.setattr(gtsa.floors, "knn_accuracies", lambda *_: {"histogram": 0.11})
    return made, asked


def test_rows_hold_the_figures_of_every_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = experiment(tmp_path, monkeypatch)
    rows = gtsa.measure(made, 0)
    assert rows.pop("histogram") == {"knn": 0.11}
    assert list(rows) == list(FIGURES)
    for name, figures in FIGURES.items():
        columns = ("knn", "linear", "miou", "ap")[: len(figures)]
        assert rows[name] == dict(zip(columns, figures, strict=True))
    detected = [
        (name, overrides) for name, evaluation, overrides in asked if evaluation == "detect"
    ]
    assert [name for name, _ in detected] == ["dino", "gtsa"]
    assert {"freeze=true"} <= set(detected[0][1]) & set(detected[1][1])
    for claim in gtsa.PAPER.claims:
        assert rows[claim.better][claim.column] > rows[claim.than][claim.column]


def test_a_run_without_its_last_evaluation_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = experiment(tmp_path, monkeypatch)
    (tmp_path / "dino-0" / "evaluations.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(MillError, match="dino-0 was not evaluated after training: omit"):
        gtsa.measure(made, 0)


def test_the_chart_has_a_panel_for_every_task(tmp_path: Path) -> None:
    columns = ("knn", "linear", "miou", "ap")
    rows = [
        {"name": name} | {column: 0.2 for column in columns[: len(figures)]}
        for name, figures in FIGURES.items()
    ]
    gtsa.draw(tmp_path / "chart.png", [{"name": "histogram", "knn": 0.1, "knn_std": 0.01}, *rows])
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
