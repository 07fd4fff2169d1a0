"""Ends of jobs on a real SLURM of eight nodes: success, cancellation, or a rank's failure.

All runs train concurrently, as they mostly wait.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers_sandbox import (
    NODES,
    STEPS,
    Journeys,
    alter,
    control,
    job,
    logs,
    merged,
    on,
    processes,
    queue,
    ranks,
    restarts,
    until,
    until_done,
    until_over,
    until_step,
)

from patchmill.cluster import status
from patchmill.loaders.common.errors import MillError
from patchmill.training.runtime import records, run_folder

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("cluster")]


@pytest.fixture(scope="module")
def journeys(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journeys]:
    with Journeys() as found:
        for name, happens, nodes in (
            ("all", until_done, ["--nodes", str(NODES)]),
            ("cancelled", somebody_cancels, on(1, 2)),
            ("killed", a_rank_is_killed, on(3, 4)),
            ("hangs", a_rank_hangs, [*on(5, 6), "--slurm", "hold"]),
            ("fails", a_rank_fails, [*on(7, 8), "--slurm", "hold"]),
            ("missing", a_node_has_no_data, [*on(1, 2), "--slurm", "hold"]),
            ("sweep", all_are_trained, ["--nodes", "1", "--sweep", "seed=0,1,2"]),
        ):
            found.begin(name, happens, queue(tmp_path_factory.mktemp(name), *nodes))
        yield found


# ---------------------------------------------------------------------------------- what happens


def somebody_cancels(run: Path) -> None:
    until_step(run, 2)
    assert processes(run)
    subprocess.run(["scancel", job(run).id], check=True)
    until_over(run)
    until(lambda: not processes(run), run)


def a_rank_is_killed(run: Path) -> None:
    """SIGKILL, as sent by the kernel when memory is short."""
    until_step(run, 2)
    os.kill(ranks(run)[1], signal.SIGKILL)
    until_over(run)


def a_rank_hangs(run: Path) -> None:
    old = "COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=15)"
    alter(
        run,
        "training/ranks/distributed.py",
        old,
        "COLLECTIVE_TIMEOUT = datetime.timedelta(seconds=40)",
    )
    control("release", job(run).id)
    until_step(run, 2)
    os.kill(ranks(run)[1], signal.SIGSTOP)
    until_over(run)


def a_rank_fails(run: Path) -> None:
    old = "            rates = _rates(state)\n"
    new = "            if state.step == 2 and state.world.rank:\n"
    new += "                lightning_strikes()\n"
    alter(run, "training/engine.py", old, new + old)
    control("release", job(run).id)
    until_over(run)


def a_node_has_no_data(run: Path) -> None:
    old = "    source = open_data(config.data.train)\n    _check"
    new = "    if world.rank:\n        config.data.train = '/nowhere/train'\n"
    alter(run, "training/data.py", old, new + old)
    control("release", job(run).id)
    until_over(run)


def all_are_trained(run: Path) -> None:
    for seed in range(3):
        until_done(run / f"seed={seed}")


# ------------------------------------------------------------------------------- what becomes of it


def tail(run: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    status.main(["--tail", str(run)])
    return capsys.readouterr().out


def test_eight_nodes_train_from_the_first_step_to_the_last(journeys):
    run = journeys["all"]
    assert restarts(run) == 0
    assert records.read(run)["step"] == list(range(1, STEPS + 1))
    assert (run / "report.html").exists()
    for rank in range(NODES):
        assert f"[{rank}] rank {rank} of 8 on 127.0.0.{rank + 1}, no GPU: patchmill" in merged(run)


def test_a_cancelled_job_is_not_requeued(journeys):
    run = journeys["cancelled"]
    assert run_folder.read_status(run)["state"] == "stopped" and "is requeued" not in logs(run)


def test_a_failed_rank_ends_the_job_and_is_shown_first(journeys, capsys):
    run = journeys["fails"]
    first, second, *_ = shown = tail(run, capsys).splitlines()
    assert first == "rank 1 on 127.0.0.8 failed first:"
    assert second == "Traceback (most recent call last):"
    assert "NameError: name 'lightning_strikes' is not defined" in shown[: shown.index("")]
    assert "rank 0 ends because rank 1 failed: NameError" in merged(run)
    assert f"{first}\n{second}\n" in merged(run)  # at its end, too


def test_data_missing_on_one_node_is_reported_in_one_line(journeys, capsys):
    run = journeys["missing"]
    first, second, *_ = tail(run, capsys).splitlines()
    assert first == "rank 1 on 127.0.0.2 failed first:"
    assert second.startswith("error: ") and "/nowhere/train" in second
    assert second.endswith("(on 127.0.0.2)")


def test_a_rank_that_hangs_ends_the_job_with_stack_traces(journeys, capsys):
    run = journeys["hangs"]
    assert "stacks-rank*.txt in the run's folder" in tail(run, capsys)
    assert "engine.py" in (run / "stacks-rank0.txt").read_text()
    assert not processes(run)


def test_a_rank_that_is_killed_is_named(journeys, capsys):
    run = journeys["killed"]
    assert tail(run, capsys).startswith("127.0.0.4: task 1: Killed\n")


def test_eight_nodes_stop_and_four_go_on_to_the_end(tmp_path, journeys):
    assert journeys["all"]
    run = queue(tmp_path, "--nodes", "8")
    with pytest.raises(MillError, match=r"trains into .*run already \((RUNNING|PENDING).*--cancel"):
        queue(tmp_path, "--nodes", "8")
    until_step(run, 2)
    subprocess.run(["scancel", "--signal=USR1", job(run).id], check=True)  # sent by the user
    until_over(run)
    stopped = run_folder.read_status(run)
    assert (stopped["state"], stopped["step"] < STEPS) == ("stopped", True), logs(run)
    assert "is requeued" not in logs(run)
    assert f"in {run}/jobs/001/code" in logs(run)  # not this checkout, which somebody may edit
    queue(tmp_path, "--nodes", "4")
    until_done(run)
    assert restarts(run) == 1
    assert records.read(run)["step"] == list(range(1, STEPS + 1))
    assert (run / "report.html").exists()
    assert len(list((run / "jobs").iterdir())) == 2


def test_a_sweep_is_an_array(journeys, capsys):
    made = [journeys["sweep"] / f"seed={seed}" for seed in range(3)]
    for run in made:
        assert "step 12 of 12" in tail(run, capsys)
    assert len({job(run).id.partition("_")[0] for run in made}) == 1
    losses = [records.read(run)["loss"] for run in made]
    assert losses[0] != losses[1] != losses[2] != losses[0]


def test_a_node_is_probed_and_the_job_followed_to_its_end(tmp_path, capsys, monkeypatch):
    queue(tmp_path, "--nodes", "1", "--probe", "--follow", **{"train.epochs": "1"})
    out = capsys.readouterr().out
    assert "rank 0 of 1 on 127.0.0.1" in out and "step 4 of 4" in out
    assert out.index(" queued\n") < out.index("report: ") and not processes(tmp_path / "run")
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho ModuleNotFoundError: no torch >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(MillError, match=r"/python cannot train on a node: .* no torch"):
        queue(tmp_path / "other", "--probe")
    assert not (tmp_path / "other").exists()


def test_a_job_that_slurm_refuses_leaves_nothing(tmp_path):
    with pytest.raises(MillError, match=r"SLURM refuses this job: .*[Ii]nvalid partition"):
        queue(tmp_path, "--partition", "nowhere")
    with pytest.raises(MillError, match=r"SLURM refuses this job: .*node"):
        queue(tmp_path, "--nodes", "16", "--dry-run")
    assert not list(tmp_path.iterdir())
