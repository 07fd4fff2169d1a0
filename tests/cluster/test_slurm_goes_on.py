"""What happens to jobs on a real SLURM of eight nodes costs them no sample.

All runs are under way at the same time: most of what they do is to wait.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers_sandbox import (
    WORDS,
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
            ("urgent", what_matters_more_comes, on(5, 6)),
            ("limit", the_time_is_over, on(7, 8)),
        ):
            found.begin(name, happens, queue(out(name), *nodes))
        # From a copy of the code, as somebody may edit this.
        run = by_the_plain_script(out("plain"), undisturbed / "jobs" / "001" / "code")
        found.begin("plain", the_plain_scripts_time_is_over, run)
        yield found


# ---------------------------------------------------------------------------------- what happens


def a_node_dies(run: Path) -> None:
    until_step(run, 6)
    with paused(run):
        control("update", "nodename=127.0.0.4", "state=down", "reason=test")
    try:
        until(lambda: commands.shown(job(run).id).get("Restarts") == "1", run)
    finally:
        # Which it may have done by itself, as its daemon answers.
        control("update", "nodename=127.0.0.4", "state=resume", check=False)
    until_done(run)


def what_matters_more_comes(run: Path) -> None:
    until_step(run, 2)
    urgent = ["sbatch", "--partition=urgent", "--nodelist=127.0.0.[5-6]", "--gpus-per-node=8"]
    subprocess.run([*urgent, "--output=/dev/null", "--wrap=sleep 1"], check=True)
    until_done(run)


def the_time_is_over(run: Path) -> None:
    until_step(run, 2)
    with paused(run):
        # As if it had run for long: SLURM's signal is due when it looks next, which wakes them.
        control("update", f"jobid={job(run).id}", "timelimit=3")
        until(lambda: "SIGUSR2" in logs(run), run)
        control("update", f"jobid={job(run).id}", "timelimit=10")
    until_done(run)


def by_the_plain_script(out: Path, code: Path) -> Path:
    words = [f"{key}={value}" for key, value in {**WORDS, "out": out, "name": "run"}.items()]
    asked = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1"]
    asked += ["--time=10", "--nodelist=127.0.0.[1-2]"]
    asked += [f"--export=ALL,PYTHON={sys.executable},PYTHONPATH={code}"]
    command = ["sbatch", "--parsable", *asked, f"--output={out}/log", "cluster/train.sbatch"]
    given = subprocess.run([*command, *words], cwd=code, capture_output=True, text=True, check=True)
    (out / "id").write_text(given.stdout.strip())
    return out / "run"


def the_plain_scripts_time_is_over(run: Path) -> None:
    id = (run.parent / "id").read_text()
    until(lambda: 2 in records.read(run).get("step", []), run)
    subprocess.run(["scancel", "--signal=USR2", id], check=True)  # as SLURM does it
    until(lambda: not commands.states([id]), run)


# ------------------------------------------------------------------------------- what becomes of it


def assert_same_learning(run: Path, other: Path) -> None:
    """The losses of all steps, and with them the samples; and what has come of them."""
    mine, its = records.read(run), records.read(other)
    for column in ("step", "loss", "lr"):
        assert mine[column] == its[column]
    networks = [checkpoint.load(checkpoint.newest(it))["method"] for it in (run, other)]
    for name, tensor in networks[0].items():
        assert torch.equal(tensor, networks[1][name]), name


def test_a_node_that_dies_costs_no_sample(journeys):
    run = journeys["node"]
    assert restarts(run) == 1
    assert_same_learning(run, journeys["nothing"])


def test_what_matters_more_goes_first(journeys):
    run = journeys["urgent"]
    assert restarts(run) == 1 and "queued again" in logs(run)
    assert_same_learning(run, journeys["nothing"])


def test_a_time_limit_is_not_the_end(journeys):
    run = journeys["limit"]
    assert restarts(run) == 1 and "queued again" in logs(run)
    assert_same_learning(run, journeys["nothing"])


def test_the_plain_script_goes_on_after_a_time_limit(journeys):
    run = journeys["plain"]
    ended = run_folder.read(run)
    assert (ended["state"], ended["restarts"]) == ("done", 1), (run.parent / "log").read_text()
    assert_same_learning(run, journeys["nothing"])
