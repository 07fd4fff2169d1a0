"""patchmill bug-report: everything an issue needs, without secrets and names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import patchmill
import patchmill.command.bug_report as bug_report
from patchmill.cluster.job import record
from patchmill.command.doctor.finding import Finding
from patchmill.loaders.common.errors import MillError


@pytest.fixture(autouse=True)
def quick_doctor(monkeypatch: pytest.MonkeyPatch):
    findings = {"machine": [Finding("cores", "ok", "two of /home/alice")]}
    monkeypatch.setattr(bug_report, "examine", lambda groups: findings)
    monkeypatch.setenv("USER", "alice")
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("MY_TOKEN", "very-secret-value")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Folder of a run that failed as a job, with the names of its machines in its files."""
    folder = tmp_path / "run"
    logs = folder / "jobs" / "001"
    logs.mkdir(parents=True)
    (folder / "config.yaml").write_text("method_name: moco\ndata: {train: /home/alice/photos}\n")
    (folder / "status.json").write_text(json.dumps({"state": "failed", "host": "node12"}))
    (folder / "log.csv").write_text("step,loss\n" + "".join(f"{n},{n}.5\n" for n in range(9)))
    (folder / "evaluations.jsonl").write_text('{"step": 8, "knn": 0.5}\n')
    entries = [{"id": n, "where": f"/data/{n}.jpg", "reason": "truncated"} for n in range(7)]
    (folder / "ledger-rank0.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    record.write(folder, record.Job("17", True, str(logs), "abc", 1.0))
    lines = [f"line {number}" for number in range(200)]
    started = "rank 0 of 2 on node13, started"
    log = "\n".join([started, *lines, "see https://me:pw@store.org/x, very-secret-value, ```", ""])
    record.merged_log_path(logs, "17").write_text(log)
    (logs / "17_0_log.out").write_text(
        f"{started}\nTraceback (most recent call last):\n  File x\nValueError: on node12\n"
    )
    return folder


def report(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    bug_report.main(argv)
    return capsys.readouterr().out


def test_the_machine_alone(capsys: pytest.CaptureFixture[str]):
    text = report(capsys)
    assert text.startswith("### What happened\n")
    assert f"patchmill {patchmill.__version__}" in text and "NCCL_DEBUG=INFO" in text
    assert "cores          two of ~" in text
    assert "### The run" not in text


def test_a_run(run: Path, capsys: pytest.CaptureFixture[str]):
    text = report(capsys, f"run={run}")
    assert "method_name: moco\ndata: {train: ~/photos}" in text
    assert "step,loss\n4,4.5\n" in text and "\n3,3.5\n" not in text
    assert '{"step": 8, "knn": 0.5}' in text
    assert "ValueError: on HOST" in text
    assert "\nline 199\n" in text and "\nline 100\n" not in text
    assert "Unreadable samples in the ledger: 7" in text
    assert "/data/4.jpg: truncated" in text and "/data/5.jpg" not in text
    for secret in ("alice", "node12", "node13", "me:pw", "very-secret-value"):
        assert secret not in text
    assert "````text" in text  # the log holds a fence itself
    assert text.count("<details") == text.count("</details>")


def test_a_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "report.md"
    said = report(capsys, f"run={run}", "--out", str(out))
    assert said == f"written to {out}: read it before you post it\n"
    assert "### The run" in out.read_text()


def test_a_run_that_has_written_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "status.json").write_text("no JSON")
    (tmp_path / "ledger-rank0.jsonl").write_text("no JSON either\n")
    text = report(capsys, f"run={tmp_path}")
    assert "no JSON either" in text and "It was not started by patchmill submit" in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run=nowhere"], "there is no run in nowhere: name its folder, as in run=runs/NAME"),
        (["runs/a"], "cannot read 'runs/a': write run=DIR, as in run=runs/NAME"),
        (["--out", "nowhere/x.md"], "cannot write nowhere/x.md: there is no folder nowhere"),
        (["--all"], "unrecognized arguments: --all; --help lists the options"),
    ],
)
def test_mistakes_are_one_sentence(argv: list[str], message: str):
    with pytest.raises(MillError) as caught:
        bug_report.main(argv)
    assert str(caught.value) == message
