"""The logs of a job's ranks as one, whose failure they tell of, and lives that come to nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from patchmill.cluster.job import failures, merged_log, record, restarts
from patchmill.loaders.common.errors import MillError
from patchmill.training.runtime import run_folder

HEAD = "rank {0} of 2 on node{0}, no GPU: patchmill abc in /code\n"
TRACE = "Traceback (most recent call last):\n  File a.py\nValueError: bad\n"
BECAUSE = "error: rank 0 ends because rank 1 failed: ValueError: bad (on node0)\n"


def wrote(folder: Path, rank: int, text: str) -> None:
    with open(folder / f"7_{rank}_log.out", "a") as file:
        file.write(text)


def texts(folder: Path) -> list[str]:
    """Without the times."""
    return [it[15:] for it in (folder / "log-7.out").read_text().splitlines()]


def told(folder: Path) -> list[str]:
    return failures.told(record.now("7", folder, False, "abc"))


def test_one_log_has_the_lines_of_all_in_order_and_goes_on_in_another_life(tmp_path):
    merged = merged_log.Merging(tmp_path, "7")
    wrote(tmp_path, 10, "")
    wrote(tmp_path, 1, "first\n")
    merged.look()
    wrote(tmp_path, 0, "10 %\r20 %\nhal")
    merged.look()
    wrote(tmp_path, 0, "f\n")  # as it is killed
    merged = merged_log.Merging(tmp_path, "7")
    wrote(tmp_path, 10, "last\n")
    merged.end(0)
    assert texts(tmp_path) == ["[1] first", "[0] 20 %", "[0] half", "[10] last"]


def test_a_job_of_one_rank_needs_no_labels(tmp_path):
    merged = merged_log.Merging(tmp_path, "7")
    wrote(tmp_path, 0, "alone\n")
    merged.end(run_folder.STOPPED)
    assert texts(tmp_path) == ["alone"]


def test_it_outlives_what_ends_the_job_until_it_is_told(tmp_path):
    done = subprocess.Popen(
        [sys.executable, "-m", "patchmill.cluster.job.merged_log", str(tmp_path)],
        env=os.environ | {"SLURM_JOB_ID": "7"},
        stdin=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "log-7.out").exists():  # by now it handles signals
        assert done.poll() is None
    done.send_signal(signal.SIGTERM)
    for rank in range(2):
        wrote(tmp_path, rank, HEAD.format(rank))
    wrote(tmp_path, 1, TRACE)
    done.communicate("1\n", timeout=60)
    assert done.returncode == 0
    lines = (tmp_path / "log-7.out").read_text().splitlines()
    assert lines[-4:] == ["rank 1 on node1 failed first:", *TRACE.splitlines()]
    assert lines[0].endswith("[0] " + HEAD.format(0).strip())


def test_who_failed_first_is_who_the_others_name(tmp_path):
    for rank in range(2):
        wrote(tmp_path, rank, "error: of another life\n" + HEAD.format(rank))
    assert told(tmp_path) == []
    wrote(tmp_path, 0, BECAUSE)
    labelled = "".join(f"[rank1]: {line}\n" for line in TRACE.splitlines())  # as torch does it
    wrote(tmp_path, 1, f"step 1\n{labelled}srun: error: node0: task 0: Terminated\n")
    assert told(tmp_path) == ["rank 1 on node1 failed first:", *TRACE.splitlines()]


def test_a_rank_that_was_killed_could_not_say_so(tmp_path):
    lost = "error: rank 0 lost the others (Connection closed)\n"
    wrote(tmp_path, 0, HEAD.format(0) + "srun: error: node0: task 1: Exited with exit code 1\n")
    assert told(tmp_path) == []
    wrote(tmp_path, 0, lost + "srun: error: node1: task 1: Out Of Memory\n")
    wrote(tmp_path, 1, HEAD.format(1))
    first, *rest = told(tmp_path)
    assert first == "node1: task 1: Out Of Memory"
    assert rest == ["rank 0 on node0 failed:", lost.strip()]


def test_a_run_that_never_comes_further_is_not_begun_for_ever(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    (tmp_path / "checkpoints").mkdir()
    for step in range(3):
        for _ in range(restarts.MOST - 1):
            restarts.begin(tmp_path)
        (tmp_path / "checkpoints" / f"step-{step:08d}.pt").touch()
    for _ in range(restarts.MOST):
        restarts.begin(tmp_path)
    with pytest.raises(MillError, match=r"job 7 began 5 times from step-00000002.pt .* node"):
        restarts.begin(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # submitted again
    restarts.begin(tmp_path)


def test_lives_are_slurms(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for _ in range(2 * restarts.MOST):
        restarts.begin(tmp_path)
    assert not list(tmp_path.iterdir())
