"""Node failures, preemption and time limits on a real SLURM of eight nodes lose no sample.

All runs train concurrently, as they mostly wait.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers_sandbox import (
    OVERRIDES,
    Journeys,
    control,
    job,
    logs,
    on,
    paused,
    queue,
    restarts,
    until,
    until_done,
    until_step,
)

from patchmill.cluster.slurm import commands
from patchmill.training.runtime import checkpoint, records, run_folder

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("cluster")]


@pytest.fixture(scope="module")
def journeys(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journeys]:
    def out(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    with Journeys() as found:
        undisturbed = queue(out("nothing"), *on(1, 2))
        found.begin("nothing", until_done, undisturbed)
        for name, happens, nodes in (
            ("node", a_node_dies, on(3, 4)),
            ("urgent", a_job_of_higher_priority_comes, on(5, 6)),
            ("limit", the_limit_is_reached, on(7, 8)),
        ):
            found.begin(name, happens, queue(out(name), *nodes))
        # From a copy of the code, as somebody may edit this.
        run = by_the_plain_script(out("plain"), undisturbed / "jobs" / "001" / "code")
        found.begin("plain", the_plain_script_reaches_its_limit, run)
        yield found


# ---------------------------------------------------------------------------------- what happens


def a_node_dies(run: Path) -> None:
    until_step(run, 6)
    with paused(run):
        control("update", "nodename=127.0.0.4", "state=down", "reason=test")
    try:
        until(lambda: commands.job_fields(job(run).id).get("Restarts") == "1", run)
    finally:
        # May fail: the node resumes by itself once its daemon answers.
        control("update", "nodename=127.0.0.4", "state=resume", check=False)
    until_done(run)


def a_job_of_higher_priority_comes(run: Path) -> None:
    until_step(run, 2)
    urgent = ["sbatch", "--partition=urgent", "--nodelist=127.0.0.[5-6]", "--gpus-per-node=8"]
    subprocess.run([*urgent, "--output=/dev/null", "--wrap=sleep 1"], check=True)
    until_done(run)


def the_limit_is_reached(run: Path) -> None:
    until_step(run, 2)
    with paused(run):
        # As if it had been running long: SLURM signals at its next check, which wakes the ranks.
        control("update", f"jobid={job(run).id}", "timelimit=3")
        until(lambda: "SIGUSR2" in logs(run), run)
        control("update", f"jobid={job(run).id}", "timelimit=10")
    until_done(run)


def by_the_plain_script(out: Path, code: Path) -> Path:
    overrides = [
        f"{key}={value}" for key, value in {**OVERRIDES, "out": out, "name": "run"}.items()
    ]
    asked = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1"]
    asked += ["--time=10", "--nodelist=127.0.0.[1-2]"]
    asked += [f"--export=ALL,PYTHON={sys.executable},PYTHONPATH={code}"]
    command = ["sbatch", "--parsable", *asked, f"--output={out}/log", "cluster/train.sbatch"]
    given = subprocess.run(
        [*command, *overrides], cwd=code, capture_output=True, text=True, check=True
    )
    (out / "id").write_text(given.stdout.strip())
    return out / "run"


def the_plain_script_reaches_its_limit(run: Path) -> None:
    id = (run.parent / "id").read_text()
    until(lambda: 2 in records.read(run).get("step", []), run)
    subprocess.run(["scancel", "--signal=USR2", id], check=True)  # as SLURM does it
    until(lambda: not commands.states([id]), run)


# ------------------------------------------------------------------------------- what becomes of it


def assert_same_learning(run: Path, other: Path) -> None:
    """Losses of all steps, which depend on the samples, and the final weights."""
    mine, its = records.read(run), records.read(other)
    for column in ("step", "loss", "lr"):
        assert mine[column] == its[column]
    networks = [checkpoint.load_newest(it).saved["method"] for it in (run, other)]
    for name, tensor in networks[0].items():
        assert torch.equal(tensor, networks[1][name]), name


def test_a_node_that_dies_costs_no_sample(journeys):
    run = journeys["node"]
    assert restarts(run) == 1
    assert_same_learning(run, journeys["nothing"])


def test_a_preempted_job_is_requeued(journeys):
    run = journeys["urgent"]
    assert restarts(run) == 1 and "is requeued" in logs(run)
    assert_same_learning(run, journeys["nothing"])


def test_a_job_at_its_time_limit_is_requeued(journeys):
    run = journeys["limit"]
    assert restarts(run) == 1 and "is requeued" in logs(run)
    assert_same_learning(run, journeys["nothing"])


def test_the_plain_script_goes_on_after_a_time_limit(journeys):
    run = journeys["plain"]
    ended = run_folder.read_status(run)
    assert (ended["state"], ended["restarts"]) == ("done", 1), (run.parent / "log").read_text()
    assert_same_learning(run, journeys["nothing"])
