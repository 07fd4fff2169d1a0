"""The last lines of a run."""

from __future__ import annotations

from pathlib import Path

from patchmill.training.runtime import summary
from patchmill.training.runtime.records import Recorder


def test_a_run_says_what_became_of_it(tmp_path: Path):
    recorder = Recorder(tmp_path, {}, tensorboard=False)
    recorder.evaluation(0, 0.0, {"knn": 0.25})
    for step, loss in ((10, 5.5), (20, 4.25)):
        recorder.scalars(step, {"loss": loss})
    recorder.evaluation(20, 2.0, {"linear": 0.9})
    recorder.evaluation(20, 2.0, {"knn": 0.5})
    (tmp_path / "report.html").touch()
    assert summary.told(tmp_path) == [
        "loss 5.500 at first, 4.250 at last; kNN accuracy 25.0% untrained, 50.0% trained",
        f"report: {tmp_path / 'report.html'}",
    ]


def test_a_run_that_was_never_evaluated_says_less(tmp_path: Path):
    assert summary.told(tmp_path) == []
    recorder = Recorder(tmp_path, {}, tensorboard=False)
    recorder.scalars(10, {"loss": 5.5})
    recorder.scalars(20, {"loss": 4.0})
    assert summary.told(tmp_path) == ["loss 5.500 at first, 4.000 at last"]
