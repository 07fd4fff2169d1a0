"""Merged logs of a job's ranks, the failure they report, and restarts without progress."""

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


def append(folder: Path, rank: int, text: str) -> None:
    with open(folder / f"7_{rank}_log.out", "a") as file:
        file.write(text)


def texts(folder: Path) -> list[str]:
    """Without the times."""
    return [it[15:] for it in (folder / "log-7.out").read_text().splitlines()]


def failure(folder: Path) -> list[str]:
    return failures.describe(record.new("7", folder, False, "abc"))


def test_the_merged_log_has_all_lines_in_order_and_continues_after_a_restart(tmp_path):
    merger = merged_log.LogMerger(tmp_path, "7")
    append(tmp_path, 10, "")
    append(tmp_path, 1, "first\n")
    merger.update()
    append(tmp_path, 0, "10 %\r20 %\nhal")
    merger.update()
    append(tmp_path, 0, "f\n")  # as it is killed
    merger = merged_log.LogMerger(tmp_path, "7")
    append(tmp_path, 10, "last\n")
    merger.finish(0)
    assert texts(tmp_path) == ["[1] first", "[0] 20 %", "[0] half", "[10] last"]


def test_a_job_of_one_rank_needs_no_labels(tmp_path):
    merger = merged_log.LogMerger(tmp_path, "7")
    append(tmp_path, 0, "alone\n")
    merger.finish(run_folder.STOPPED)
    assert texts(tmp_path) == ["alone"]


def test_the_merger_outlives_signals_until_it_gets_the_exit_code(tmp_path):
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
        append(tmp_path, rank, HEAD.format(rank))
    append(tmp_path, 1, TRACE)
    done.communicate("1\n", timeout=60)
    assert done.returncode == 0
    lines = (tmp_path / "log-7.out").read_text().splitlines()
    assert lines[-4:] == ["rank 1 on node1 failed first:", *TRACE.splitlines()]
    assert lines[0].endswith("[0] " + HEAD.format(0).strip())


def test_the_rank_that_others_blame_failed_first(tmp_path):
    for rank in range(2):
        append(tmp_path, rank, "error: before the restart\n" + HEAD.format(rank))
    assert failure(tmp_path) == []
    append(tmp_path, 0, BECAUSE)
    labelled = "".join(f"[rank1]: {line}\n" for line in TRACE.splitlines())  # as torch does it
    append(tmp_path, 1, f"step 1\n{labelled}srun: error: node0: task 0: Terminated\n")
    assert failure(tmp_path) == ["rank 1 on node1 failed first:", *TRACE.splitlines()]


def test_a_killed_rank_is_reported_from_the_line_of_srun(tmp_path):
    lost = "error: rank 0 lost the others (Connection closed)\n"
    append(tmp_path, 0, HEAD.format(0) + "srun: error: node0: task 1: Exited with exit code 1\n")
    assert failure(tmp_path) == []
    append(tmp_path, 0, lost + "srun: error: node1: task 1: Out Of Memory\n")
    append(tmp_path, 1, HEAD.format(1))
    first, *rest = failure(tmp_path)
    assert first == "node1: task 1: Out Of Memory"
    assert rest == ["rank 0 on node0 failed:", lost.strip()]


def test_a_run_without_progress_does_not_restart_forever(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    (tmp_path / "checkpoints").mkdir()
    for step in range(3):
        for _ in range(restarts.MAX_STARTS - 1):
            restarts.record_start(tmp_path)
        (tmp_path / "checkpoints" / f"step-{step:08d}.pt").touch()
    for _ in range(restarts.MAX_STARTS):
        restarts.record_start(tmp_path)
    with pytest.raises(MillError, match=r"job 7 started 5 times from step-00000002.pt .* node"):
        restarts.record_start(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # submitted again
    restarts.record_start(tmp_path)


def test_starts_outside_slurm_are_not_recorded(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for _ in range(2 * restarts.MAX_STARTS):
        restarts.record_start(tmp_path)
    assert not list(tmp_path.iterdir())
