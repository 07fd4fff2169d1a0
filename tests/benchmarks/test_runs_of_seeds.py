"""Runs of benchmarks are trained and evaluated once; figures of seeds are summarised."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from patchmill.benchmarks.lib import runs, seeds, untrained
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose
from patchmill.training.evaluation import trained_run
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import checkpoint, run_folder

TINY = [
    "method=simclr",
    "data=scenes",
    "scale=demo",
    "data.train=scenes(count=8, size=32)",
    "data.test=scenes(count=4, seed=1, size=32)",
    "train.device=cpu",
    "seed=3",
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record commands instead of running them; an evaluation writes the number of the call."""
    made: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        made.append(command[1:])
        overrides = dict(word.split("=", 1) for word in command[2:])
        if "evaluate" in overrides:
            file = Path(overrides["run"]) / f"{overrides['evaluate']}.json"
            file.write_text(json.dumps({"call": len(made)}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return made


def test_training_calls_the_command(tmp_path: Path, calls: list[list[str]]) -> None:
    runs.train(tmp_path / "moco-0", "method=moco", "seed=0")
    script = str(runs.TRAINING / "run.py")
    assert calls == [[script, "method=moco", "seed=0", f"out={tmp_path}", "name=moco-0"]]
    assert Path(script).is_file() and (runs.TRAINING / "evaluate.py").is_file()


def test_an_evaluation_is_done_once_with_the_same_overrides(
    tmp_path: Path, calls: list[list[str]]
) -> None:
    assert runs.evaluate(tmp_path, "knn", "space=h") == {"call": 1}
    assert runs.evaluate(tmp_path, "knn", "space=z") == {"call": 2}
    assert runs.evaluate(tmp_path, "linear", "space=h") == {"call": 3}
    assert runs.evaluate(tmp_path, "knn", "space=h") == {"call": 1}
    assert runs.evaluate(tmp_path, "knn", "space=z") == {"call": 2}
    assert calls[0][1:] == [f"run={tmp_path}", "evaluate=knn", "space=h"]
    run_folder.Status(tmp_path).end("done", step=20)  # trained on
    assert runs.evaluate(tmp_path, "knn", "space=h") == {"call": 4}


def test_a_failed_command_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "a warning\nerror: no space left\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(MillError, match=r"^moco-0 failed: no space left$"):
        runs.train(tmp_path / "moco-0", "method=moco")
    with pytest.raises(MillError, match=r"^moco-0 failed: no space left$"):
        runs.evaluate(tmp_path / "moco-0", "knn")


# ------------------------------------------------------------------------------ untrained networks


def test_an_untrained_network_is_a_finished_run(tmp_path: Path) -> None:
    config = compose.compose([*TINY, f"out={tmp_path}", "name=run"])
    (tmp_path / "run").mkdir()
    compose.save(config, tmp_path / "run")
    folder = tmp_path / "untrained"
    untrained.store(folder, tmp_path / "run")
    trained_run.check_finished(folder)
    stored = trained_run.load(folder, compose.load(folder), World())
    expected = trained_run.untrained(config, World()).state_dict()
    assert stored.step == 0 and stored.config.name == "untrained"
    for name, values in stored.method.state_dict().items():
        assert torch.equal(values, expected[name])
    (path,) = checkpoint.find_all(folder)
    written = path.stat().st_mtime_ns
    untrained.store(folder, tmp_path / "run")
    assert path.stat().st_mtime_ns == written


# ----------------------------------------------------------------------------------------- figures


def test_rows_are_means_and_sample_deviations() -> None:
    figures = [{"knn": 0.5, "miou": 0.2}, {"knn": 0.6, "miou": 0.2}, {"knn": 0.7, "miou": 0.2}]
    row = seeds.row("moco", figures)
    assert row["name"] == "moco"
    assert (row["knn"], row["knn_std"]) == (0.6, 0.1)  # (0.1^2 + 0 + 0.1^2) / 2 is 0.1^2
    assert (row["miou"], row["miou_std"]) == (0.2, 0.0)
    assert row["seeds"] == {"knn": [0.5, 0.6, 0.7], "miou": [0.2, 0.2, 0.2]}


def test_one_seed_has_no_deviation() -> None:
    row = seeds.row("moco", [{"knn": 0.5}])
    assert row == {"name": "moco", "knn": 0.5, "seeds": {"knn": [0.5]}}
    assert seeds.cell(row, "knn") == "50.0"


def test_differences_are_of_equal_seeds() -> None:
    """Seeds move both methods by 0.2, and their difference by 0.02."""
    first = [{"knn": 0.5, "miou": 0.3}, {"knn": 0.7, "miou": 0.3}]
    second = [{"knn": 0.4}, {"knn": 0.58}]
    row = seeds.difference("a - b", first, second)
    assert row["seeds"] == {"knn": [0.1, 0.12]} and row["knn"] == 0.11
    assert row["knn_std"] == pytest.approx(0.01 * 2**0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("figures", "signed", "text"),
    [
        ({"knn": 0.7123, "knn_std": 0.0051}, False, "71.2 ± 0.5"),
        ({"knn": 0.02, "knn_std": 0.01}, True, "+2.0 ± 1.0"),
        ({"knn": -0.02, "knn_std": 0.01}, True, "-2.0 ± 1.0"),
        ({"linear": 0.5}, False, ""),
    ],
)
def test_cells(figures: dict[str, float], signed: bool, text: str) -> None:
    assert seeds.cell(figures, "knn", signed) == text
