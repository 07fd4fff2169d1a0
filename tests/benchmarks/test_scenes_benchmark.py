"""The benchmark of scenes measures floors and networks with and without class colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patchmill.benchmarks import scenes as benchmark
from patchmill.benchmarks.lib import runs
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose

FLOORS = ("six_numbers", "histogram", "centre_histogram", "grey_pixels")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Overrides of the evaluations; runs are only configured, and results are fake."""
    evaluated: list[tuple[str, ...]] = []

    def train(folder: Path, *overrides: str) -> None:
        folder.mkdir(parents=True)
        compose.save(compose.compose([*overrides, f"out={folder.parent}"]), folder)

    def evaluate(folder: Path, evaluation: str, *overrides: str) -> dict[str, Any]:
        evaluated.append((folder.name, evaluation, *overrides))
        seed = int(folder.name[-1])
        before = {"knn": 0.2, "linear_online": 0.3}
        after = {"knn": 0.8 + 0.1 * seed, "linear_online": 0.9}
        return {"figures": {"before training": before, "after training": after}}

    def accuracies(train: str, test: str) -> dict[str, float]:
        return dict.fromkeys(FLOORS, 0.7 if "colour_bias=1.0" in train else 0.11111)

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "evaluate", evaluate)
    monkeypatch.setattr(benchmark.floors, "knn_accuracies", accuracies)
    return evaluated


def test_rows_with_and_without_colours_of_classes(
    tmp_path: Path, made: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "result.json"
    data = ["data.train=scenes(count=64, size=64)", "data.test=scenes(count=32, seed=1, size=64)"]
    benchmark.main(["--seeds", "2", "--out", str(tmp_path), "--json", str(written), *data])
    free, biased = json.loads(written.read_text())["rows"]
    assert (free["name"], biased["name"]) == ("colour_bias=0", "colour_bias=1")
    assert free["train"] == "scenes(count=64, size=64)"
    assert biased["test"] == "scenes(count=32, seed=1, size=64, colour_bias=1.0)"
    assert all(free[name] == 0.1111 and biased[name] == 0.7 for name in FLOORS)
    assert free["untrained"] == 0.2 and free["supervised_linear"] == 0.9
    assert free["supervised"] == 0.85 and free["supervised_std"] == pytest.approx(0.0707)
    for row, overrides in ((free, made[:2]), (biased, made[2:])):
        data = [f"data.train={row['train']}", f"data.test={row['test']}"]
        assert overrides == [(f"supervised-{seed}", "online", *data) for seed in range(2)]
    assert "85.0 ± 7.1" in capsys.readouterr().out


def test_errors_are_one_sentence(tmp_path: Path, made: list[tuple[str, ...]]) -> None:
    with pytest.raises(MillError, match="--seeds must be at least 1"):
        benchmark.main(["--seeds", "0"])
    with pytest.raises(MillError, match="must be scenes, not photos"):
        benchmark.main(["--seeds", "1", "--out", str(tmp_path), "data.train=photos"])
