"""Selfie's paper script: trainings, measurements and charts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchmill.benchmarks.lib import runs
from patchmill.benchmarks.lib.papers import Experiment, claims, command
from patchmill.benchmarks.papers import selfie
from patchmill.loaders.recipe import Grid
from patchmill.training.config import command_line, compose
from patchmill.training.config.recipes import training_recipe
from patchmill.training.evaluation.registry import EVALUATIONS
from patchmill.training.runtime import records

SCRATCH = {5: 0.3, 10: 0.4, 20: 0.6, 100: 0.9}


@pytest.fixture
def asked() -> list[tuple[str, ...]]:
    """Overrides of the evaluations."""
    return []


@pytest.fixture
def experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, ...]]
) -> Experiment:
    """Two seeds whose runs have a log; evaluations are fake."""
    for name in ("selfie-0", "selfie-1", "selfie-jitter-0", "selfie-jitter-1"):
        folder = tmp_path / name
        folder.mkdir()
        overrides = [*selfie.PAPER.budgets["cpu"].overrides, "method=selfie"]
        compose.save(compose.compose(overrides), folder)
        log = records.Recorder(folder, {}, tensorboard=False)
        for step, share in enumerate([0.2, 0.5, 0.6, 0.6, 0.6, 0.7]):
            log.scalars(step, {"accuracy": share})
        log.close()

    def evaluate(folder: Path, evaluation: str, *overrides: str) -> dict[str, Any]:
        assert evaluation == "finetune"
        asked.append(overrides)
        gain = 0.1 + 0.02 * int(folder.name[-1]) - 0.05 * ("jitter" in folder.name)
        return {
            "finetuned": {
                f"{title} on {percent} % of the labels": {"top1": top1 + better}
                for percent, top1 in SCRATCH.items()
                for title, better in (("fine-tuned", gain), ("from scratch", 0.0))
                if title == "fine-tuned" or "baseline=true" in overrides
            }
        }

    monkeypatch.setattr(runs, "evaluate", evaluate)
    return Experiment(selfie.PAPER, replace(selfie.BUDGETS["cpu"], tests=50), tmp_path)


def test_both_networks_are_measured_on_every_share(experiment: Experiment) -> None:
    rows = selfie.measure(experiment, 1)
    assert rows["supervised"] == {f"at_{percent}": top1 for percent, top1 in SCRATCH.items()}
    assert rows["selfie"]["at_20"] == pytest.approx(0.72)
    assert rows["selfie"]["placed"] == pytest.approx(0.6)  # of the last five rows
    assert rows["guessing"] == {"placed": 0.25}  # four patches are masked
    assert set(rows["selfie"]) == set(selfie.PAPER.columns)


def test_a_seed_has_one_subset_and_the_same_steps_for_each_share(
    experiment: Experiment, asked: list[tuple[str, ...]]
) -> None:
    selfie.measure(experiment, 1)
    (*overrides, test), (*jittered, _) = asked
    assert [*filter(lambda word: "baseline" not in word, overrides)] == [
        *filter(lambda word: "baseline" not in word, jittered)
    ]
    texts = command_line.split(overrides)
    settings = command_line.parse(EVALUATIONS["finetune"].settings, texts)
    assert set(texts) <= set(vars(settings))
    assert settings.labels == [0.05, 0.1, 0.2, 1.0] and settings.seeds == [1]
    assert settings.baseline and settings.steps and settings.epochs is None
    assert "count=50" in test


def test_claims_are_of_each_share(experiment: Experiment, tmp_path: Path) -> None:
    results = [selfie.measure(experiment, seed) for seed in range(2)]
    judged = [claims.judge(claim, results) for claim in selfie.PAPER.claims]
    assert [row["difference"] for row in judged] == pytest.approx(
        [0.11] * 4 + [0.35] + [0.06] * 4 + [0.35]
    )
    chart = tmp_path / "chart.png"
    selfie.draw(chart, command.table(results))
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("budget", ["cpu", "gpu", "paper"])
def test_overrides_of_fine_tuning_are_its_settings(budget: str) -> None:
    texts = command_line.split([*selfie.BUDGETS[budget].finetune])
    settings = command_line.parse(EVALUATIONS["finetune"].settings, texts)
    assert texts and set(texts) <= set(vars(settings))


@pytest.mark.parametrize(
    ("budget", "data", "grid", "patch"),
    [
        ("cpu", "scenes", 4, 16),
        ("gpu", "scenes", 4, 32),
        ("paper", "imagenet", 7, 32),
        ("paper", "cifar10", 4, 8),
    ],
)
def test_overrides_compose(budget: str, data: str, grid: int, patch: int, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
    more = [] if data == "scenes" else [f"data={data}", f"data.root={tmp_path}"]
    experiment = Experiment(selfie.PAPER, selfie.PAPER.budgets[budget], tmp_path, more)
    configs = [compose.compose(overrides) for overrides in experiment.trainings(0).values()]
    made = [training_recipe(config).views[0] for config in configs]
    for config, views in zip(configs, made, strict=True):
        assert isinstance(views.crop, Grid)
        assert (config.method_name, config.data.name) == ("selfie", data)
        assert (views.crop.rows, views.size) == (grid, patch)
    as_published, jittered = made
    assert as_published.colour is None and jittered == replace(as_published, colour=jittered.colour)
