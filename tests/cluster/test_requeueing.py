"""Which ends are followed by another life, and what SLURM's commands say, as sentences."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.cluster import resources, status
from patchmill.cluster.slurm import commands, script
from patchmill.cluster.slurm.commands import is_due
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
        (signal.SIGUSR1, "RUNNING", "None", False),  # the user's own wish
        (signal.SIGINT, "RUNNING", "None", False),
    ],
)
def test_what_is_queued_again(number, state, preempted, due):
    assert is_due(number, {"JobState": state, "PreemptTime": preempted}) is due


def test_nothing_is_queued_again_that_slurm_does_not_know():
    assert not is_due(signal.SIGUSR2, {})


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_time_limits_are_read_as_sbatch_does(days, hours, minutes, seconds):
    whole = (days * 24 + hours) * 60 + minutes
    if whole or seconds:
        text = f"{days}-{hours}:{minutes}:{seconds}"
        assert resources.minutes(text) == whole + bool(seconds)
        assert resources.minutes(f"{days * 24 + hours}:{minutes}:{seconds}") == whole + bool(
            seconds
        )
    if whole:
        assert resources.minutes(f"{days}-{hours}:{minutes}") == whole
        assert resources.minutes(str(whole)) == whole


@pytest.mark.parametrize("text", ["", "0", "1:2:3:4", "-1", "1-", "a", "1.5", "00:00"])
def test_what_is_no_time_limit(text):
    with pytest.raises(MillError, match="no time"):
        resources.minutes(text)


def test_what_slurm_prints_becomes_a_sentence():
    said = "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
    assert (
        commands.sentence(said) == "Batch job submission failed: Invalid partition name specified"
    )
    two = "allocation failure: Requested node configuration is not available\n"
    assert commands.sentence(two).endswith("not available")
    assert commands.sentence("") == "it gives no reason"


def test_jobs_inside_jobs_forget_the_outer_one(monkeypatch):
    kept = {"SLURM_CONF": "a", "SLURMLIKE": "b", "MASTER_ADDR": "c"}
    lost = {"SLURM_NTASKS": "2", "SUBMITIT_EXECUTOR": "slurm", "RANK": "1", "WORLD_SIZE": "2"}
    for name, text in (kept | lost).items():
        monkeypatch.setenv(name, text)
    import os

    with commands.clean_environment():
        assert not lost.keys() & os.environ.keys() and kept.items() <= os.environ.items()
    assert lost.items() <= os.environ.items()


def test_the_table(tmp_path, monkeypatch, capsys):
    import json
    import time

    from patchmill.cluster.job import record

    monkeypatch.setattr(commands, "is_there", lambda: True)
    told = {"7": "RUNNING", "8": "PENDING (Resources)"}
    monkeypatch.setattr(commands, "states", lambda ids=(): told)
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
            record.write(run, record.now(job, tmp_path, False, "abc"))
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
    with pytest.raises(MillError, match="was not given to a job"):
        status.main(["--tail", str(tmp_path / "sweep" / "d")])


def test_a_run_that_saves_slowly_is_told_earlier_when_it_goes_on(tmp_path):
    needs = resources.find({"gpus_per_node": 0})

    def text() -> str:
        return script.text(script.executor(needs, tmp_path / "jobs" / "001", "run"), 1)

    assert "#SBATCH --signal=USR2@180\n" in text()
    (tmp_path / "status.json").write_text('{"checkpoint_s": 100.2}')
    assert "#SBATCH --signal=USR2@261\n" in text()
