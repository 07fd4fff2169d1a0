"""The paper scripts' shared code trains each run once, and judges claims per seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchmill.benchmarks.lib import runs, seeds
from patchmill.benchmarks.lib.papers import Budget, Claim, Experiment, Paper, claims, command
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose

NEW = (0.50, 0.61, 0.69)
OLD = (0.40, 0.50, 0.60)
CLAIMS = (
    Claim("new over old", better="new", than="old", column="knn"),
    Claim("old over new", better="old", than="new", column="knn"),
    Claim("the same in both columns", "new", "new", "knn", other_column="linear", equal=True),
)


def measure(experiment: Experiment, seed: int) -> dict[str, dict[str, float]]:
    """Figures for the seed, without an evaluation."""
    assert experiment.folder("new", seed).name == f"new-{seed}"
    return {
        "old": {"knn": OLD[seed]},
        "new": {"knn": NEW[seed], "linear": NEW[seed]},
    }


PAPER = Paper(
    name="new",
    title="New against old",
    budgets={"cpu": Budget(("data=scenes", "scale=demo"), tests=50), "paper": Budget(())},
    trainings=lambda budget, seed: {"old": ["method=moco"], "new": ["method=dilo"]},
    measure=measure,
    columns={"knn": "kNN", "linear": "linear"},
    claims=CLAIMS,
)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Overrides of the trainings, by the names of their runs; nothing is trained."""
    made: dict[str, list[str]] = {}
    monkeypatch.setattr(
        runs, "train", lambda folder, *overrides: made.update({folder.name: list(overrides)})
    )
    return made


def test_every_run_is_trained_and_the_results_are_stored(
    tmp_path: Path, trained: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    file, chart = tmp_path / "out.json", tmp_path / "out.png"
    command.run(PAPER, ["--json", str(file), "--plot", str(chart), "optim.lr=0.1"])
    assert set(trained) == {f"{name}-{seed}" for name in ("old", "new") for seed in range(3)}
    assert trained["new-2"] == [
        *("data=scenes", "scale=demo", "method=dilo", "optim.lr=0.1", "seed=2")
    ]
    content = json.loads(file.read_text())
    assert (content["budget"], content["seeds"], content["tests"]) == ("cpu", 3, 50)
    old, new = content["rows"]
    assert old["knn"] == 0.5 and "linear" not in old and new["seeds"]["knn"] == list(NEW)
    assert [claim["verdict"] for claim in content["claims"]] == [
        *("holds", "is reversed", "no difference shows")
    ]
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert "new over old: holds (+10.0 ± " in capsys.readouterr().out


def test_inputs_of_trainings_are_made_first(
    tmp_path: Path, trained: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = []
    paper = replace(PAPER, prepare=lambda experiment: before.append(len(trained)))
    command.run(paper, ["--plan"])
    assert not before
    command.run(paper, ["--seeds", "1"])
    assert before == [0] and len(trained) == 2


def test_claims_on_rows_that_a_budget_lacks_are_skipped(
    tmp_path: Path, trained: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = (Claim("no row", "newest", "old", "knn"), Claim("no column", "old", "new", "linear"))
    command.run(replace(PAPER, claims=(*missing, CLAIMS[0])), ["--json", "out.json"])
    (claim,) = json.loads(Path("out.json").read_text())["claims"]
    assert claim["name"] == CLAIMS[0].text


def test_differences_are_judged_by_their_interval() -> None:
    results = [measure(Experiment(PAPER, Budget(()), Path("runs")), seed) for seed in range(3)]
    row = claims.judge(CLAIMS[0], results)
    assert row["difference"] == 0.1 and row["seeds"] == [0.1, 0.11, 0.09]
    assert row["difference_error"] == pytest.approx(0.01 / 3**0.5, abs=1e-4)
    assert row["difference_interval"] == pytest.approx(4.303 * 0.01 / 3**0.5, abs=1e-4)
    wide = [{"new": {"knn": value}, "old": {"knn": 0.5}} for value in (0.9, 0.45, 0.48)]
    assert claims.judge(CLAIMS[0], wide)["verdict"] == "does not show"
    assert claims.judge(CLAIMS[0], wide[:1])["verdict"] == "does not show"  # one seed tells nothing
    same = Claim("the same", "new", "old", "knn", equal=True)
    assert claims.judge(same, results)["verdict"] == "a difference shows"


@pytest.mark.parametrize("freedom", [1, 2, 4, 10, 11, 20, 60])
def test_intervals_use_students_t(freedom: int) -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    assert seeds.student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


def test_the_plan_trains_nothing(
    trained: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    command.run(PAPER, ["--plan"])
    printed = capsys.readouterr().out
    assert not trained
    assert "python training/run.py data=scenes scale=demo method=dilo seed=0" in printed
    assert "python benchmarks/training.py" in printed or "images at" in printed


def test_the_number_of_scenes_to_test_on_is_the_budgets(tmp_path: Path) -> None:
    compose.save(compose.compose(["method=moco", "data=scenes"]), tmp_path)
    experiment = Experiment(PAPER, Budget((), tests=70), tmp_path)
    test = experiment.test_data(tmp_path)
    assert test and "count=70" in test and "seed=1" in test
    compose.save(compose.compose(["method=moco", "data=scenes", "data.test=photos"]), tmp_path)
    with pytest.raises(MillError, match="--tests is a number of scenes"):
        experiment.test_data(tmp_path)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--budget", "gpus"], "invalid choice: 'gpus'"),
        (["--json", "no/such/folder/x.json"], "cannot write"),
    ],
)
def test_mistakes_are_one_sentence(
    argv: list[str], message: str, trained: dict[str, list[str]]
) -> None:
    with pytest.raises(MillError, match=message) as caught:
        command.run(PAPER, argv)
    assert "\n" not in str(caught.value) and not trained
