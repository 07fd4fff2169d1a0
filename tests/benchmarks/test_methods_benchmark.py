"""The benchmark of methods reports the results of its runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from patchmill.benchmarks import methods as benchmark
from patchmill.loaders.common.errors import MillError
from patchmill.training.runtime import records

SMALL = [
    "data.train=scenes(count=32, size=32)",
    "data.test=scenes(count=16, seed=1, size=32)",
    "train.epochs=2",
    "train.batch_size=8",
    "train.log_every=2",
    "evaluate.knn_every=1",
    "train.workers=1",
    "log.tensorboard=false",
]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["methods.py", *words])
    benchmark.main()


def test_rows_hold_the_results_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, json_file = tmp_path / "runs", tmp_path / "out.json"
    words = ["--methods", "tcr", "--out", str(out), "--json", str(json_file)]
    run(monkeypatch, *words, *SMALL)
    rows = {row["name"]: row for row in json.loads(json_file.read_text())["rows"]}
    assert list(rows) == ["tcr"]
    for name, row in rows.items():
        folder = out / f"{name}-0"
        losses = records.read(folder)["loss"]
        evaluations = records.evaluations(folder)
        first, last = evaluations[0], evaluations[-1]
        assert row["loss_first"] == pytest.approx(losses[0], abs=1e-4)
        assert row["loss_last"] == pytest.approx(losses[-1], abs=1e-4)
        for column, key in (("knn", "knn"), ("linear", "linear_online")):
            assert row[f"{column}_untrained"] == pytest.approx(first[key], abs=1e-4)
            assert row[f"{column}_trained"] == pytest.approx(last[key], abs=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "mocco"], "there is no method mocco: choose from bagssl"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--methods", "tcr", "train.epoch=2"], "tcr-0 failed: .*train.epochs"),
    ],
)
def test_errors_are_one_sentence(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MillError, match=message):
        run(monkeypatch, "--out", str(tmp_path), *words)
