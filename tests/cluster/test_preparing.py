"""Data preparation shared among tasks: plans, refusals, remaining work, and a real SLURM."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from patchmill.cluster import submit
from patchmill.cluster.job import record
from patchmill.cluster.prepare import tasks
from patchmill.cluster.slurm import commands
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.prepare import command as prepare
from patchmill.training.runtime import run_folder

SCENES = "scenes(count=24, size=48)"
SMALL = [SCENES, "out", "--tasks", "3"]


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No user profile, and an empty working directory."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "is_available", lambda: False)


def submitted(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    submit.main(argv)
    return capsys.readouterr().out


def refused(*argv: str) -> str:
    with pytest.raises(MillError) as caught:
        submit.main(argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {it.name: it.read_bytes() for it in folder.iterdir()}


def make_share(*argv: str, rank: int, tasks: int = 3) -> None:
    """Prepare one rank's share, as another machine would."""
    prepare.main([*argv, "--rank", str(rank), "--world-size", str(tasks)])


def test_missing_shares_are_made_here(no_slurm, capsys, tmp_path):
    for rank in range(3):
        make_share(SCENES, "whole", rank=rank)
    make_share(SCENES, "out", rank=1)
    out = submitted(capsys, "prepare", *SMALL, "--workers", "1")
    assert "tasks            3 of 8 images at most; 1 done, 2 left\n" in out
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert submitted(capsys, "prepare", *SMALL).endswith("out is complete already: nothing to do\n")
    assert sorted(it.name for it in tmp_path.iterdir()) == ["out", "whole"]


def test_masks_do_not_depend_on_the_number_of_tasks(no_slurm, capsys, tmp_path):
    argv = [SCENES, "--method", "gs", "--max-side", "16"]
    for name, count in (("one", "1"), ("three", "3")):
        out = submitted(capsys, "masks", *argv, "--out", f"{name}.masks", "--tasks", count)
    assert "complete: " in out
    assert (tmp_path / "one.masks").read_bytes() == (tmp_path / "three.masks").read_bytes()


def test_shares_that_were_not_merged(no_slurm, capsys, tmp_path, monkeypatch):
    """Killed before merging: the same command, or the final job, only merges."""
    from patchmill.loaders.prepare import output

    with monkeypatch.context() as patch:
        patch.setattr(output, "complete", lambda *_: False)
        for rank in range(3):
            make_share(SCENES, "out", rank=rank)
    assert not (tmp_path / "out" / "dataset.json").exists()
    argv = (SCENES, "out", "--world-size", "3", "--rank", "0")
    (tmp_path / "jobs").mkdir()
    tasks.MergeTask(argv, str(tmp_path), str(tmp_path / "jobs"))()
    assert (tmp_path / "out" / "dataset.json").exists()
    assert run_folder.read_status(tmp_path / "jobs")["state"] == "done"


def test_merging_names_missing_shares(tmp_path, capsys):
    make_share(SCENES, "out", rank=1)
    argv = (SCENES, "out", "--world-size", "3", "--rank", "0")
    (tmp_path / "jobs").mkdir()
    with pytest.raises(SystemExit):
        tasks.MergeTask(argv, str(tmp_path), str(tmp_path / "jobs"))()
    assert "2 of 3 shares of out are not complete (0, 2)" in capsys.readouterr().err
    assert run_folder.read_status(tmp_path / "jobs")["state"] == "failed"


SIGNALLED = """
import os, signal, sys
from patchmill.cluster.prepare.tasks import ShareTask
from patchmill.loaders.prepare import images

made, images.convert = images.convert, lambda *asked: (
    os.kill(os.getpid(), signal.SIGUSR2) or made(*asked)
)
ShareTask((sys.argv[1], "out", "--workers", "1"), os.getcwd(), True)()
"""


def test_a_signal_stops_a_share_which_the_next_start_continues(tmp_path):
    before = [signal.getsignal(it) for it in tasks.SIGNALS]
    command = [sys.executable, "-c", SIGNALLED, SCENES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (run_folder.STOPPED, "")
    assert not (tmp_path / "out" / "dataset.json").exists()
    tasks.ShareTask((SCENES, "out"), str(tmp_path), True)()
    assert (tmp_path / "out" / "dataset.json").exists()
    assert [signal.getsignal(it) for it in tasks.SIGNALS] == before


def test_a_dry_run_shows_the_array_and_writes_nothing(no_slurm, capsys, tmp_path):
    make_share(SCENES, "out", rank=1)
    before = contents(tmp_path / "out")
    out = submitted(
        capsys, "prepare", *SMALL, "--dry-run", "--partition", "cpu", "--cpus-per-task", "4"
    )
    for line in ("array=0-1%2", "partition=cpu", "cpus-per-task=4", "requeue", "signal=USR2@60"):
        assert f"#SBATCH --{line}\n" in out, line
    assert "gpus" not in out and "merges their shares" in out
    assert contents(tmp_path / "out") == before and [*tmp_path.iterdir()] == [tmp_path / "out"]


def test_mistakes_are_refused_in_one_sentence(no_slurm, tmp_path):
    for argv, said in (
        (["prepare", SCENES], "the following arguments are required: OUT; --help"),
        (["prepare", *SMALL, "--formt", "beton"], "unrecognized arguments: --formt"),
        (["prepare", "no_such_folder", "out"], "no_such_folder"),
        (["prepare", *SMALL, "--rank", "1"], "omit --rank and --world-size"),
        (["prepare", *SMALL, "--overwrite"], "remove it yourself"),
        (["prepare", SCENES, "out", "--tasks", "25"], "are more than the 24 images"),
        (["prepare", SCENES, "out", "--tasks", "0"], "--tasks must be a number above 0, not 0"),
        (["prepare", SCENES, "a.beton", "--tasks", "2"], "prepare shards with --tasks, then"),
        (["prepare", *SMALL, "--time", "soon"], "time=soon is not a time limit"),
        (["prepare", *SMALL, "--nodes", "2"], "unrecognized arguments: --nodes 2"),
        (["masks", SCENES, "--method", "rdb"], "rdb"),
        (["masks", SCENES, "--out", "nowhere/a.masks"], "there is no folder nowhere"),
    ):
        assert said in refused(*argv), argv
    make_share(SCENES, "out", rank=1)
    assert "made with --tasks 3, not 4" in refused("prepare", SCENES, "out", "--tasks", "4")
    assert [*tmp_path.iterdir()] == [tmp_path / "out"]


def test_a_second_job_for_the_same_output_is_refused(no_slurm, tmp_path, monkeypatch):
    jobs_of = tmp_path / "out.jobs"
    jobs_of.mkdir()
    record.write(jobs_of, record.new("7", jobs_of, False, "abc"))
    monkeypatch.setattr(commands, "is_available", lambda: True)
    monkeypatch.setattr(commands, "states", lambda ids=(): {"7_3": "PENDING", "7_1": "RUNNING"})
    said = refused("prepare", *SMALL)
    assert "job 7 makes " in said and "out already (RUNNING)" in said and "--cancel" in said


@pytest.mark.slurm
def test_on_slurm_as_an_array(cluster, capsys, tmp_path):
    for rank in range(3):
        make_share(SCENES, "whole", rank=rank)
    make_share(SCENES, "out", rank=1)
    out = submitted(capsys, "prepare", *SMALL, "--cpus-per-task", "1", "--time", "10")
    assert "queued: 2 tasks" in out
    until_over(tmp_path / "out.jobs")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert submitted(capsys, "prepare", *SMALL).endswith("nothing to do\n")


@pytest.mark.slurm
@pytest.mark.xdist_group("slurm")
def test_a_share_that_slurm_stops_early_is_requeued(cluster, capsys, tmp_path):
    """The job that merges the shares waits for the requeued one."""
    import helpers_sandbox

    asked = ["--cpus-per-task", "1", "--time", "10", "--slurm", "hold"]
    out = submitted(capsys, "prepare", SCENES, "out", "--tasks", "2", *asked)
    # Slower, so that it can be caught while it works.
    slept = "    import time\n\n    time.sleep(0.5)\n    source = work.source\n    where ="
    file, quick = "loaders/prepare/convert_samples.py", "    source = work.source\n    where ="
    helpers_sandbox.alter(tmp_path / "out.jobs", file, quick, slept)
    array, ending = re.findall(r"job +(\d+),", out)
    helpers_sandbox.control("release", array, ending)
    first = tmp_path / "out" / ".prepare-0000.journal"
    helpers_sandbox.until(first.exists, tmp_path / "out.jobs")
    subprocess.run(["scancel", "--signal=USR2", f"{array}_0"], check=True)
    until_over(tmp_path / "out.jobs")
    logs = [it.read_text() for it in (tmp_path / "out.jobs").rglob(f"{array}_0_*_log.out")]
    assert "is requeued" in logs[0]
    assert (tmp_path / "out" / "dataset.json").exists()


def until_over(folder: Path) -> None:
    ends = time.monotonic() + 240
    while run_folder.read_status(folder)["state"] == "running" and time.monotonic() < ends:
        time.sleep(0.2)
    logs = "\n".join(it.read_text() for it in folder.rglob("*.out"))
    assert run_folder.read_status(folder)["state"] == "done", logs
