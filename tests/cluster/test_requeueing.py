"""Requeueing after signals, time limits, messages of SLURM's programs, and the status table."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.cluster import resources, status
from patchmill.cluster.slurm import commands, script
from patchmill.cluster.slurm.commands import should_requeue
from patchmill.loaders.common.errors import MillError


@pytest.mark.parametrize(
    ("number", "state", "preempted", "due"),
    [
        (signal.SIGUSR2, "RUNNING", "None", True),  # before the time limit
        (signal.SIGUSR2, "RUNNING", "2030-01-01T00:00:00", True),
        (signal.SIGUSR2, "CANCELLED", "None", False),  # scancel, meanwhile
        (signal.SIGTERM, "RUNNING", "2030-01-01T00:00:00", True),
        (signal.SIGTERM, "RUNNING", "None", False),  # scancel --signal=TERM
        (signal.SIGTERM, "CANCELLED", "None", False),
        (signal.SIGUSR1, "RUNNING", "None", False),  # sent by the user
        (signal.SIGINT, "RUNNING", "None", False),
    ],
)
def test_signals_that_requeue(number, state, preempted, due):
    assert should_requeue(number, {"JobState": state, "PreemptTime": preempted}) is due


def test_a_job_unknown_to_slurm_is_not_requeued():
    assert not should_requeue(signal.SIGUSR2, {})


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_time_limits_are_read_as_sbatch_does(days, hours, minutes, seconds):
    whole = (days * 24 + hours) * 60 + minutes
    if whole or seconds:
        text = f"{days}-{hours}:{minutes}:{seconds}"
        assert resources.limit_minutes(text) == whole + bool(seconds)
        assert resources.limit_minutes(f"{days * 24 + hours}:{minutes}:{seconds}") == whole + bool(
            seconds
        )
    if whole:
        assert resources.limit_minutes(f"{days}-{hours}:{minutes}") == whole
        assert resources.limit_minutes(str(whole)) == whole


@pytest.mark.parametrize("text", ["", "0", "1:2:3:4", "-1", "1-", "a", "1.5", "00:00"])
def test_invalid_time_limits(text):
    with pytest.raises(MillError, match="not a time"):
        resources.limit_minutes(text)


def test_messages_of_slurm_become_one_sentence():
    said = "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
    assert commands.message(said) == "Batch job submission failed: Invalid partition name specified"
    two = "allocation failure: Requested node configuration is not available\n"
    assert commands.message(two).endswith("not available")
    assert commands.message("") == "it gives no reason"


def test_a_job_submitted_inside_a_job_does_not_inherit_its_variables(monkeypatch):
    kept = {"SLURM_CONF": "a", "SLURMLIKE": "b", "MASTER_ADDR": "c"}
    lost = {"SLURM_NTASKS": "2", "SUBMITIT_EXECUTOR": "slurm", "RANK": "1", "WORLD_SIZE": "2"}
    for name, text in (kept | lost).items():
        monkeypatch.setenv(name, text)
    import os

    with commands.clean_environment():
        assert not lost.keys() & os.environ.keys() and kept.items() <= os.environ.items()
    assert lost.items() <= os.environ.items()


def test_the_status_table(tmp_path, monkeypatch, capsys):
    import json
    import time

    from patchmill.cluster.job import record

    monkeypatch.setattr(commands, "is_available", lambda: True)
    states = {"7": "RUNNING", "8": "PENDING (Resources)"}
    monkeypatch.setattr(commands, "states", lambda ids=(): states)
    running = dict(state="running", epoch=1.5, loss=2.25, images_per_s=1234, eta_s=7260, restarts=1)
    for name, job, said in (
        ("a", "7", running),
        ("b", "8", {}),
        ("c", "9", running),
        ("d", "", running | {"state": "done"}),
    ):
        run = tmp_path / "sweep" / name
        run.mkdir(parents=True)
        if job:
            record.write(run, record.new(job, tmp_path, False, "abc"))
        if said:
            (run / "status.json").write_text(json.dumps(said | {"time": time.time()}))
    status.main([str(tmp_path)])
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head[:2] == ["run", "state"]
    assert [row[1:] for row in rows] == [
        ["running", "7", "1.5", "1,234", "2:01", "h", "2.25", "1"],
        ["pending", "(resources)", "8"],
        ["killed", "9", "1.5", "2.25", "1"],
        ["done", "1.5", "2.25", "1"],
    ]
    with pytest.raises(MillError, match="does not belong to a job"):
        status.main(["--tail", str(tmp_path / "sweep" / "d")])


def test_a_continued_run_with_slow_checkpoints_is_signalled_earlier(tmp_path):
    needs = resources.load({"gpus_per_node": 0})

    def text() -> str:
        return script.text(script.executor(needs, tmp_path / "jobs" / "001", "run"), 1)

    assert "#SBATCH --signal=USR2@180\n" in text()
    (tmp_path / "status.json").write_text('{"checkpoint_s": 100.2}')
    assert "#SBATCH --signal=USR2@261\n" in text()
