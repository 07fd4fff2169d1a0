"""A speedrun's clock, table and rows."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from patchmill.benchmarks import speedrun
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose
from patchmill.training.runtime import run_folder

SMALL = (
    *("data.train=scenes(count=32, size=32)", "data.test=scenes(count=16, seed=1, size=32)"),
    *("train.epochs=2", "train.batch_size=8", "train.workers=1", "evaluate.knn_every=1"),
    *("train.precision=fp32", "optim.warmup=0"),
)
NOW = 1e9  # by the clock of a fake run
STARTS, EVALUATES = 2.0, 0.5  # seconds of a fake run, which also takes 8 per epoch


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Fake training: seed n reaches the accuracy after 3 + n epochs, except for seed 1."""
    made: list[dict[str, Any]] = []

    def train(folder: Path, *overrides: str, environment: Mapping[str, str]) -> None:
        config = compose.compose([*overrides, f"out={folder.parent}", f"name={folder.name}"])
        made.append({"folder": folder.name, "environment": environment, "words": overrides})
        assert all(not Path(path).exists() for path in environment.values())
        folder.mkdir(parents=True)
        compose.save(config, folder)
        rows = [{"step": 0, "epoch": 0, "knn": 0.125}, {"step": 9, "epoch": 9, "knn": 0.5}]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "evaluations.jsonl").write_text(text)
        epochs = 3 + config.seed
        fields = {"began": NOW + STARTS, "evaluation_s": EVALUATES, "epoch": epochs}
        if config.seed != 1:
            fields["reached"] = NOW + STARTS + EVALUATES + 8 * epochs
        run_folder.Status(folder).end("done", **fields)

    monkeypatch.setattr(speedrun.runs, "train", train)
    monkeypatch.setattr(speedrun.machine, "gpus", list)
    monkeypatch.setattr(speedrun, "time", SimpleNamespace(time=lambda: NOW))
    return made


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", ["speedrun.py", *argv, "--out", str(out)])
    speedrun.main()


def test_a_real_seed_is_raced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "out.json"
    argv = ["--seeds", "1", "--warm-caches", "--json", str(file), "evaluate.stop_at=0", *SMALL]
    began = time.time()
    run(monkeypatch, tmp_path, *argv)
    took = time.time() - began
    first = json.loads(file.read_text())
    (row,) = first["rows"]
    assert (row["name"], row["target"], row["started"], row["reached"]) == (
        "scenes",
        "kNN 0 %",
        1,
        1,
    )
    assert row["epochs"] == 1 and row["most_epochs"] == 2
    assert (
        0 < row["evaluation_s"] < row["seconds"] < took and 0 < row["start_up_s"] < row["seconds"]
    )
    assert row["cpu_s"] > 0 and row["runs"][0]["seconds"] == pytest.approx(row["seconds"])
    record = tmp_path / "scenes-0" / speedrun.RECORD
    written = record.stat().st_mtime_ns
    run(monkeypatch, tmp_path, *argv)
    assert record.stat().st_mtime_ns == written
    assert json.loads(file.read_text())["rows"] == first["rows"]


def test_the_table_is_of_the_seeds_that_reached_the_accuracy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trainings: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "out.json"
    run(monkeypatch, tmp_path, "--json", str(file), "evaluate.stop_at=0.5")
    (row,) = json.loads(file.read_text())["rows"]
    times = [STARTS + EVALUATES + 8 * epochs for epochs in (3, 5)]
    assert (row["started"], row["reached"], len(row["runs"])) == (3, 2, 3)
    assert row["seconds"] == sum(times) / 2
    assert row["seconds_std"] == pytest.approx(16 / 2**0.5, abs=1e-3)
    assert [row["fastest"], row["slowest"]] == times
    assert (row["start_up_s"], row["evaluation_s"]) == (STARTS, EVALUATES)
    assert (row["untrained"], row["accuracy"]) == (0.125, 0.5)
    assert "cuda" not in row["words"] and "evaluate.stop_at=0.5" in row["words"]
    out = capsys.readouterr().out
    assert "2 of 3" in out and "seed 1 failed: 50.0 % at best in 4 epochs" in out
    assert [training["folder"] for training in trainings] == ["scenes-0", "scenes-1", "scenes-2"]


def test_each_seed_has_empty_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[dict[str, Any]]
) -> None:
    run(monkeypatch, tmp_path / "cold", "--seeds", "2")
    run(monkeypatch, tmp_path / "warm", "--seeds", "1", "--warm-caches")
    first, second, warm = (training["environment"] for training in trainings)
    assert set(first) == set(second) == set(speedrun.CACHES) and warm == {}
    assert not set(first.values()) & {*second.values(), *os.environ.values()}


def test_an_interrupted_seed_is_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "scenes-0"
    folder.mkdir()
    (folder / "evaluations.jsonl").write_text("of a process that was stopped")
    run(monkeypatch, tmp_path, "--seeds", "1")
    assert len(trainings) == 1 and (folder / speedrun.RECORD).exists()
    with pytest.raises(
        MillError, match=r"scenes-0 holds a seed with other settings: choose another"
    ):
        run(monkeypatch, tmp_path, "--seeds", "1", "optim.lr=0.5")


def test_a_subset_lists_the_first_images_of_each_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[dict[str, Any]]
) -> None:
    row = replace(speedrun.ROWS["cifar10-5000"], images={"train": 50, "test": 20})
    monkeypatch.setitem(speedrun.ROWS, "cifar10-5000", row)
    for split, images in (("train", 6), ("test", 2)):
        for name in "abcdefghij":
            folder = tmp_path / "root" / split / name
            folder.mkdir(parents=True)
            for number in range(images):
                (folder / f"{number}.jpg").touch()
    argv = ["--seeds", "1", "--data", "cifar10-5000", "--root", str(tmp_path / "root")]
    run(monkeypatch, tmp_path, *argv)
    data = compose.load(tmp_path / "cifar10-5000-0").data
    for path, count in ((data.train, 50), (data.test, 20)):
        title, *lines = Path(str(path)).read_text().splitlines()
        assert title == "path,label" and len(lines) == count
        assert lines[0].endswith("a/0.jpg,0") and lines[-1].endswith(",9")
        per_class = count // 10
        assert lines[per_class - 1].endswith(f"a/{per_class - 1}.jpg,0")


def test_a_dry_run_composes_every_row(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trainings: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, tmp_path, "--dry-run")
    out = capsys.readouterr().out
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert [head.partition(":")[0] for head in heads] == list(speedrun.ROWS)
    assert "imagenette: kNN 88.9 %, simclr, resnet18, 128 px, at most 800 epochs" in heads
    assert any(
        head.startswith("imagenette-vit: linear 87.1 %, lejepa, vit_small") for head in heads
    )
    assert out.count("not measured here") == sum(
        row.device == "cuda" for row in speedrun.ROWS.values()
    )
    assert not trainings and "data.root=DIR" in out and "data.cache=device:" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data", "cifar"], "there is no row cifar: choose from scenes, cifar10-5000"),
        (["--data", "imagenette"], "--data imagenette needs --root DIR"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["evaluate.stop_at=null"], r"a speedrun needs an accuracy to reach"),
        (["optim.rate=1"], r"there is no setting 'optim\.rate'"),
        (["--data", "cifar10-5000", "--root", "."], r"--root \. has no folder train"),
    ],
)
def test_errors_are_one_sentence(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MillError, match=message):
        run(monkeypatch, tmp_path, *argv)
