"""Runs below a folder, and what their files say: half written, broken, gone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import helpers_report
import pytest
from helpers_watch import begin, impatient, log, serving, stream, until

from patchmill.training.watch import run_files
from patchmill.training.watch.shelf import Shelf


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    impatient(monkeypatch)


def test_runs_lie_at_any_depth_and_come_and_go(tmp_path: Path):
    begin(tmp_path / "sweep" / "lr=0.1" / "seed-0")
    begin(tmp_path / "plain")
    begin(tmp_path / "plain" / "inner")  # inside a run: no run
    begin(tmp_path / ".hidden")
    begin(tmp_path / "a" / "b" / "c" / "too-deep")
    (tmp_path / "plain" / "checkpoints").mkdir()
    shelf = Shelf(tmp_path)
    assert list(shelf.runs()) == ["plain", "sweep/lr=0.1/seed-0"] and not shelf.is_one_run
    first = shelf.runs()["plain"]
    begin(tmp_path / "later")
    assert list(shelf.runs()) == ["later", "plain", "sweep/lr=0.1/seed-0"]
    assert shelf.runs()["plain"] is first
    (tmp_path / "plain").rename(tmp_path / ".plain")
    assert list(shelf.runs()) == ["later", "sweep/lr=0.1/seed-0"]


def test_a_folder_that_is_a_run_is_the_only_one(tmp_path: Path):
    assert list(Shelf(tmp_path).runs()) == []
    begin(tmp_path)
    begin(tmp_path / "inner")
    shelf = Shelf(tmp_path)
    assert list(shelf.runs()) == ["."] and shelf.is_one_run
    assert shelf.runs()["."].line()["name"] == tmp_path.name
    assert list(Shelf(tmp_path / "none").runs()) == []


def test_the_line_of_a_run(tmp_path: Path):
    helpers_report.full(tmp_path / "run")
    line = Shelf(tmp_path).runs()["run"].line()
    assert (line["method"], line["data"], line["scale"]) == ("dilo", "scenes", "demo")
    assert line["state"] == "done" and line["step"] == 300 and line["restarts"] == 1
    assert line["best"] == line["knn"] == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(
    "text", ["", "[1, 2", "{", '{"state": NaN, "loss": Infinity}', "[]", "\0", '"a"', "[" * 10**5]
)
@pytest.mark.parametrize(
    "name", ["status.json", "config.yaml", "evaluations.jsonl", "ledger-rank0.jsonl"]
)
def test_broken_files_are_read_as_far_as_they_go(tmp_path: Path, name: str, text: str):
    helpers_report.full(tmp_path / "run")
    (tmp_path / "run" / name).write_text(text)
    run = Shelf(tmp_path).runs()["run"]
    line, details = run.line(), run.details()
    assert line["id"] == details["id"] == "run"
    json.dumps([line, details], allow_nan=False)  # raises for what JSON does not have


def test_figures_that_are_not_finite_are_left_out(tmp_path: Path):
    recorder = begin(tmp_path / "run")
    recorder.evaluation(10, 1.0, {"knn": 0.5, "rankme_h": math.nan})
    recorder.evaluation(5, 0.5, {"knn": math.inf, "spread_h": 0.5})
    with open(tmp_path / "run" / "evaluations.jsonl", "a") as file:
        file.write('{"step": 20, "knn": 0.')
    assert Shelf(tmp_path).runs()["run"].details()["evaluations"] == [
        {"step": 5, "epoch": 0.5, "spread_h": 0.5},
        {"step": 10, "epoch": 1.0, "knn": 0.5},
    ]


def test_very_many_evaluations_are_thinned_out(tmp_path: Path):
    lines = [json.dumps({"step": step, "knn": 0.1}) for step in range(5000)]
    (tmp_path / "evaluations.jsonl").write_text("\n".join(lines))
    rows = run_files.evaluations(tmp_path)
    assert len(rows) == run_files.MOST_EVALUATIONS
    assert rows[0]["step"] == 0 and rows[-1]["step"] == 4999


def test_the_ledgers_of_all_ranks_are_one(tmp_path: Path):
    begin(tmp_path / "run")
    for rank, ids in enumerate([(3, 5), (5, 8)]):
        lines = [json.dumps({"id": id, "where": f"{id}.jpg", "reason": "cut"}) for id in ids]
        (tmp_path / "run" / f"ledger-rank{rank}.jsonl").write_text("\n".join([*lines, '{"id": 9']))
    details = Shelf(tmp_path).runs()["run"].details()
    assert details["bad"] == 3 and [entry["id"] for entry in details["ledger"]] == [3, 5, 8]


def test_a_ledger_that_grows_is_read_again(tmp_path: Path):
    begin(tmp_path / "run")
    for rank in (0, 1):
        (tmp_path / "run" / f"ledger-rank{rank}.jsonl").write_text("")
    run = Shelf(tmp_path).runs()["run"]
    assert run.details()["bad"] == 0
    with open(tmp_path / "run" / "ledger-rank1.jsonl", "a") as file:
        file.write(json.dumps({"id": 3, "where": "3.jpg", "reason": "cut"}) + "\n")
    assert run.details()["bad"] == 1


def test_a_stream_sends_what_changes_and_nothing_else(tmp_path: Path):
    recorder = begin(tmp_path / "run")
    log(recorder, range(1, 4))
    with serving(tmp_path) as server, stream(server, "run", "none") as events:
        assert until(events, "runs")["runs"][0]["state"] == "running"
        assert until(events, "run")["id"] == "run"
        assert until(events, "log")["columns"]["step"]["mean"] == [1, 2, 3]
        log(recorder, range(4, 6))
        new = until(events, "log")
        assert new["from"] == 3 and new["columns"]["step"]["mean"] == [4, 5]
        recorder.evaluation(5, 0.2, {"knn": 0.25})
        seen = dict(next(events) for _ in range(2))
        assert seen["run"]["evaluations"][0]["knn"] == seen["runs"]["runs"][0]["knn"] == 0.25
        begin(tmp_path / "other", state="stopped")
        assert len(until(events, "runs")["runs"]) == 2


def test_a_run_that_was_away_is_sent_again_whole(tmp_path: Path):
    log(begin(tmp_path / "run"), range(1, 4))
    with serving(tmp_path) as server, stream(server, "run") as events:
        until(events, "log")
        (tmp_path / "run").rename(tmp_path / ".away")
        assert until(events, "runs")["runs"] == []
        (tmp_path / ".away").rename(tmp_path / "run")
        assert until(events, "log")["columns"]["step"]["mean"] == [1, 2, 3]
