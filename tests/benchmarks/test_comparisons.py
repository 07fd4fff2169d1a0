"""Comparisons report what their runs' evaluations say, over seeds and seed by seed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from patchmill.benchmarks import comparisons
from patchmill.benchmarks.lib import runs, seeds
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose
from patchmill.training.config.recipes import training_recipe

# Accuracies of each run in percent: kNN, linear, mIoU.
FROZEN = {
    "untrained-0": (30.0, 35.0, 10.0),
    "untrained-1": (32.0, 37.0, 12.0),
    "dino-0": (50.0, 55.0, 20.0),
    "dino-1": (60.0, 57.0, 24.0),
    "gtsa-0": (53.0, 60.0, 30.0),
    "gtsa-1": (61.0, 58.0, 36.0),
}
TUNED = {"selfie-0": (40.0, 30.0), "selfie-1": (50.0, 42.0)}  # fine-tuned, from scratch


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Words of the runs, by name; runs are only configured, and results are made up."""
    made: dict[str, list[str]] = {}

    def train(folder: Path, *words: str) -> None:
        made[folder.name] = list(words)
        folder.mkdir(parents=True)
        compose.save(compose.compose([*words, f"out={folder.parent}"]), folder)

    def store(folder: Path, like: Path) -> None:
        folder.mkdir(parents=True)
        compose.save(compose.load(like), folder)

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(comparisons.untrained, "store", store)
    monkeypatch.setattr(comparisons.colours, "knn_accuracy", lambda *_: 0.45)
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
    if evaluation == "finetune":
        names = "fine-tuned on 5 % of the labels", "from scratch on 5 % of the labels"
        scores = zip(names, TUNED[run], strict=True)
        return {"finetuned": {name: {"images": 50, "top1": top1 / 100} for name, top1 in scores}}
    knn, linear, miou = (figure / 100 for figure in FROZEN[run])
    other = {"aAcc": 0.9, "mIoU": 0.01, "mAcc": 0.8}
    files: dict[str, dict[str, Any]] = {
        "knn": {"knn": knn, "untrained": 0.1},
        "linear": {"probes": [{"lr": 0.1, "last": linear, "best": linear + 0.05}]},
        "segment": {"backbones": {"trained": other | {"mIoU": miou}, "untrained": other}},
    }
    return files[evaluation]


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
    assert list(rows) == [
        *("colours", "untrained", "dino", "gtsa", "gtsa - dino"),
        *("supervised", "selfie", "selfie - supervised"),
    ]
    assert rows["gtsa"]["knn"] == 0.57 and rows["gtsa"]["seeds"]["miou"] == [0.3, 0.36]
    assert rows["dino"]["linear"] == 0.56 and rows["untrained"]["miou"] == 0.11
    assert rows["colours"]["knn"] == 0.45 and "linear" not in rows["colours"]
    assert rows["gtsa - dino"]["seeds"] == {
        "knn": [0.03, 0.01],
        "linear": [0.05, 0.01],
        "miou": [0.1, 0.12],
    }
    assert rows["gtsa - dino"]["miou_std"] == pytest.approx(0.01 * 2**0.5, abs=1e-4)
    assert rows["selfie"]["accuracy"] == 0.45 and rows["supervised"]["accuracy"] == 0.36
    assert rows["selfie - supervised"]["seeds"] == {"accuracy": [0.1, 0.08]}
    printed = capsys.readouterr().out
    assert lines_with(printed, "gtsa - dino") == ["gtsa - dino +2.0 ± 1.4 +3.0 ± 2.8 +11.0 ± 1.4"]
    assert lines_with(printed, "colours") == ["colours 45.0 ± 0.0"]
    assert lines_with(printed, "selfie -") == ["selfie - supervised +9.0 ± 1.4"]


def lines_with(text: str, start: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.startswith(start)]


def test_gtsa_and_dino_share_network_length_and_views(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: dict[str, list[str]],
    evaluated: list[tuple[str, ...]],
) -> None:
    words = ["--only", "gtsa", "--seeds", "1", "--tests", "50", "train.epochs=3"]
    compare(monkeypatch, tmp_path, *words)
    gtsa, dino = (compose.load(tmp_path / "runs" / f"{name}-0") for name in ("gtsa", "dino"))
    assert gtsa.method_name == "gtsa" and dino.method_name == "dino"
    assert gtsa.data == dino.data and gtsa.data.name == "many_scenes"
    assert gtsa.train == dino.train and gtsa.train.epochs == 3
    assert gtsa.size == dino.size and gtsa.evaluate.view == dino.evaluate.view
    for name in comparisons.NETWORK:
        assert getattr(gtsa.model, name) == getattr(dino.model, name)
    views = [[(v.size, v.total) for v in training_recipe(config).views] for config in (gtsa, dino)]
    assert views[0] == views[1]
    assert gtsa.data.test
    test_words = {words[-1] for words in evaluated}
    assert test_words == {f"data.test={gtsa.data.test.replace('count=300', 'count=50')}"}
    by_run = {name: [w[1:] for w in evaluated if w[0] == f"{name}-0"] for name in ("dino", "gtsa")}
    assert by_run["dino"] == by_run["gtsa"] == [w[1:] for w in evaluated if "untrained" in w[0]]


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

    for name, words in (
        ("knn", ["space=h"]),
        ("linear", comparisons.LINEAR),
        ("segment", comparisons.SEGMENT),
        ("finetune", [*comparisons.FINETUNE, "seeds=[1]"]),
    ):
        texts = command_line.split(words)
        settings = command_line.parse(EVALUATIONS[name].settings, texts)
        assert set(texts) <= set(vars(settings))


def test_tables_leave_figures_out_that_a_row_lacks() -> None:
    comparison = comparisons.COMPARISONS["gtsa"]
    one = {
        "colours": {"knn": 0.4},
        "dino": {"knn": 0.5, "miou": 0.1},
        "gtsa": {"knn": 0.4, "miou": 0.2},
    }
    table = comparisons.summarise(comparison, [one])
    assert table[-1] == {"name": "gtsa - dino", "knn": -0.1, "miou": 0.1} | {
        "seeds": {"knn": [-0.1], "miou": [0.1]}
    }
    *_, colours, dino, _, difference = comparisons.lines(comparison, table)
    assert colours.split() == ["colours", "40.0"] and dino.split() == ["dino", "50.0", "10.0"]
    assert difference.split() == ["gtsa", "-", "dino", "-10.0", "+10.0"]
    assert seeds.cell(table[0], "miou") == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "moco"], "there is no comparison moco: choose from gtsa, selfie"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--tests", "0"], "--tests must be at least 1"),
        (["--only", "gtsa", "data.test=photos"], "need scenes to test on, not photos"),
    ],
)
@pytest.mark.usefixtures("trained", "evaluated")
def test_mistakes_are_one_sentence(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MillError, match=message) as caught:
        compare(monkeypatch, tmp_path, *words)
    assert "\n" not in str(caught.value)
