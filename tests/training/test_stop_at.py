"""A run with evaluate.stop_at ends at its first evaluation with that accuracy, and is done."""

from __future__ import annotations

import time
from pathlib import Path

import helpers_runs
import pytest
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.training.runtime import checkpoint, hooks, records, run_folder

KNN, LINEAR = (0.9, 0.1, 0.6, 0.7), (0.2, 0.1, 0.3, 0.8)  # of the evaluations after each epoch


@pytest.fixture(autouse=True)
def scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracies as above, by the steps trained, in place of measured ones."""
    torch.set_num_threads(1)
    measured = iter(zip(KNN, LINEAR, strict=True))

    def measure(*_: object) -> dict[str, float]:
        knn, linear = next(measured)
        return {"knn": knn, "linear_online": linear, "rankme_h": 1.0}

    monkeypatch.setattr(hooks.online, "measure", measure)


def config(out: Path, **overrides: object):
    return helpers_runs.config(out, evaluate="knn", **overrides)


@pytest.mark.parametrize(
    ("metric", "stop_at", "epochs"),
    [("knn", 0.6, 2), ("linear_online", 0.3, 2), ("knn", 0.95, None)],
)
def test_it_ends_a_run(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    metric: str,
    stop_at: float,
    epochs: int | None,
) -> None:
    """The untrained network has 90 %, and ends nothing."""
    began = time.time()
    folder = helpers_runs.train(
        config(tmp_path, evaluate__stop_at=stop_at, evaluate__stop_metric=metric)
    )
    status = run_folder.read_status(folder)
    assert status["state"] == "done" and status["steps"] == 3 * helpers_runs.EPOCH
    assert status["step"] == (epochs or 3) * helpers_runs.EPOCH
    assert [row["step"] for row in records.evaluations(folder)][-1] == status["step"]
    newest = checkpoint.load_newest(folder)
    assert newest is not None and newest.path.name == f"step-{status['step']:08d}.pt"
    assert (folder / "report.html").exists()
    assert status["evaluation_s"] > 0
    if epochs is None:
        assert "reached" not in status
    else:
        assert began < status["began"] < status["reached"] < time.time()
        said = f"has reached evaluate.stop_at={stop_at}: the run ends after epoch {epochs} of 3"
        assert said in capsys.readouterr().err
        ended = f"ended by evaluate.stop_at={stop_at}" in (folder / "report.html").read_text()
        assert ended


def test_the_same_command_ends_again_and_another_continues(tmp_path: Path) -> None:
    whole = helpers_runs.train(helpers_runs.config(tmp_path, name="whole"))
    for stop_at, steps in ((0.6, 10), (0.6, 10), ("null", 15)):
        folder = helpers_runs.train(config(tmp_path, evaluate__stop_at=stop_at))
        status = run_folder.read_status(folder)
        assert (status["state"], status["step"]) == ("done", steps)
        assert ("reached" in status) == (steps == 10)
    helpers_runs.assert_same(helpers_runs.final(whole), helpers_runs.final(folder))


def test_it_needs_evaluations_with_labels(tmp_path: Path) -> None:
    with pytest.raises(MillError, match=r"evaluate\.stop_at needs evaluations during training"):
        helpers_runs.config(tmp_path, evaluate__stop_at=0.5)
    with pytest.raises(MillError, match=r"evaluate\.stop_at=0\.5 needs an accuracy, but none is"):
        helpers_runs.train(config(tmp_path, evaluate__stop_at=0.5, data__test="none"))
