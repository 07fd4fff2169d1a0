"""Progress as lines and as a bar, log levels of ranks, and the summary of a finished run."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest

from patchmill.training.runtime import display
from patchmill.training.runtime.display import Display
from patchmill.training.runtime.records import Recorder

VALUES = {"loss": 6.9131, "images_per_s": 812.4, "wait": 0.014, "lr": 0.03}


def test_occasional_lines(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    with Display(400, 100, "dilo") as shown:
        for step in range(101, 401):
            now[0] += 0.1
            shown.update(step, step / 100, VALUES)
        shown.say("kNN 0.51")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "step 101 of 400: epoch 1.0, loss 6.913, 812 images/s, waits for data 1%, 0:00:30 left"
    )
    assert 4 <= len(lines) <= 6 and lines[-1] == "kNN 0.51"
    assert lines[-2].startswith("step 400 of 400: epoch 4.0") and "left" not in lines[-2]


def test_an_unknown_loss_is_omitted(capsys):
    with Display(4, 0, "dilo") as shown:
        shown.update(1, 0.5, VALUES | {"loss": None})
    assert "epoch 0.5, 812 images/s" in capsys.readouterr().err


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with Display(400, 0, "dilo on scenes") as shown:
        shown.update(200, 2.0, VALUES)
        shown.say("kNN 0.51")
    written = sys.stderr.getvalue()
    assert "dilo on scenes" in written and "200/400" in written and "kNN 0.51" in written
    assert "loss 6.913" in written


@pytest.mark.parametrize(("first", "told"), [(True, ["news", "trouble"]), (False, ["trouble"])])
def test_rank_0_logs_everything_and_other_ranks_warnings(first, told, caplog):
    log = logging.getLogger("patchmill")
    before = log.level
    try:
        display.configure_logging(first)
        log.info("news")
        log.warning("trouble")
    finally:
        log.setLevel(before)
    assert caplog.messages == told


def test_the_summary_has_first_and_last_values(tmp_path: Path):
    recorder = Recorder(tmp_path, {}, tensorboard=False)
    recorder.evaluation(0, 0.0, {"knn": 0.25})
    for step, loss in ((10, 5.5), (20, 4.25)):
        recorder.scalars(step, {"loss": loss})
    recorder.evaluation(20, 2.0, {"linear": 0.9})
    recorder.evaluation(20, 2.0, {"knn": 0.5})
    assert display.summary(tmp_path) == (
        "loss 5.500 at the start, 4.250 at the end; kNN accuracy 25.0% untrained, 50.0% trained"
    )


def test_the_summary_of_a_run_that_was_never_evaluated_is_shorter(tmp_path: Path):
    assert display.summary(tmp_path) == ""
    recorder = Recorder(tmp_path, {}, tensorboard=False)
    recorder.scalars(10, {"loss": 5.5})
    recorder.scalars(20, {"loss": 4.0})
    assert display.summary(tmp_path) == "loss 5.500 at the start, 4.000 at the end"


def test_the_rise_of_the_accuracy_is_drawn(tmp_path: Path):
    recorder = Recorder(tmp_path, {}, tensorboard=False)
    for epoch, accuracy in enumerate((0.2, 0.3, 0.4)):
        recorder.evaluation(10 * epoch, epoch, {"knn": accuracy})
    lines = display.summary(tmp_path).splitlines()
    assert lines[0] == "kNN accuracy 20.0% untrained, 40.0% trained"
    assert [line.split()[:4] for line in lines[1:]] == [
        ["epoch", "0", "kNN", "20.0%"],
        ["epoch", "1", "kNN", "30.0%"],
        ["epoch", "2", "kNN", "40.0%"],
    ]
    assert [line.count("█") for line in lines[1:]] == [20, 30, 40]
