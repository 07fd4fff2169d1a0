"""Comparisons report what their runs' evaluations say, over seeds and seed by seed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from patchmill.benchmarks import comparisons
from patchmill.benchmarks.lib import runs
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose

TUNED = {"selfie-0": (40.0, 30.0), "selfie-1": (50.0, 42.0)}  # fine-tuned, from scratch


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Words of the runs, by name; runs are only configured, and results are made up."""
    made: dict[str, list[str]] = {}

    def train(folder: Path, *words: str) -> None:
        made[folder.name] = list(words)
        folder.mkdir(parents=True)
        compose.save(compose.compose([*words, f"out={folder.parent}"]), folder)

    monkeypatch.setattr(runs, "train", train)
    return made


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Words of the evaluations."""
    made: list[tuple[str, ...]] = []

    def evaluate(folder: Path, evaluation: str, *words: str) -> dict[str, Any]:
        made.append((folder.name, evaluation, *words))
        return result(folder.name, evaluation)

    monkeypatch.setattr(runs, "evaluate", evaluate)
    return made


def result(run: str, evaluation: str) -> dict[str, Any]:
    """A file that the evaluation would write."""
    assert evaluation == "finetune"
    names = "fine-tuned on 5 % of the labels", "from scratch on 5 % of the labels"
    scores = zip(names, TUNED[run], strict=True)
    return {"finetuned": {name: {"images": 50, "top1": top1 / 100} for name, top1 in scores}}


def compare(monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> dict[str, dict[str, Any]]:
    json_file = out / "out.json"
    monkeypatch.setattr(
        sys,
        "argv",
        ["comparisons.py", *words, "--out", str(out / "runs"), "--json", str(json_file)],
    )
    comparisons.main()
    content = json.loads(json_file.read_text())
    return {row["name"]: row for row in content["rows"]}


@pytest.mark.usefixtures("trained", "evaluated")
def test_rows_are_means_over_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = compare(monkeypatch, tmp_path, "--seeds", "2")
    assert list(rows) == ["supervised", "selfie", "selfie - supervised"]
    assert rows["selfie"]["accuracy"] == 0.45 and rows["supervised"]["accuracy"] == 0.36
    assert rows["selfie - supervised"]["seeds"] == {"accuracy": [0.1, 0.08]}
    printed = capsys.readouterr().out
    assert lines_with(printed, "selfie -") == ["selfie - supervised +9.0 ± 1.4"]


def lines_with(text: str, start: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.startswith(start)]


def test_every_seed_has_its_subset(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: dict[str, list[str]],
    evaluated: list[tuple[str, ...]],
) -> None:
    compare(monkeypatch, tmp_path, "--only", "selfie", "--seeds", "2", "optim.lr=0.01")
    assert [words[-2:] for words in trained.values()] == [
        ["optim.lr=0.01", "seed=0"],
        ["optim.lr=0.01", "seed=1"],
    ]
    assert [(run, evaluation) for run, evaluation, *_ in evaluated] == [
        ("selfie-0", "finetune"),
        ("selfie-1", "finetune"),
    ]
    for seed, (_, _, *words) in enumerate(evaluated):
        assert {f"seeds=[{seed}]", "labels=0.05", "baseline=true"} < set(words)


def test_words_fit_the_evaluations() -> None:
    """Settings that evaluations do not have would fail after the training."""
    from patchmill.training.config import command_line
    from patchmill.training.evaluation.registry import EVALUATIONS

    for name, words in (("finetune", [*comparisons.FINETUNE, "seeds=[1]"]),):
        texts = command_line.split(words)
        settings = command_line.parse(EVALUATIONS[name].settings, texts)
        assert set(texts) <= set(vars(settings))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "moco"], "there is no comparison moco: choose from selfie"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--tests", "0"], "--tests must be at least 1"),
        (["--only", "selfie", "data.test=photos"], "need scenes to test on, not photos"),
    ],
)
@pytest.mark.usefixtures("trained", "evaluated")
def test_mistakes_are_one_sentence(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MillError, match=message) as caught:
        compare(monkeypatch, tmp_path, *words)
    assert "\n" not in str(caught.value)
