"""Jobs on a real SLURM of eight nodes on this machine: they end, are ended, and go on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from patchmill.cluster import jobs, slurm, submit
from patchmill.loaders.errors import MillError
from patchmill.training import checkpoint, records, runs

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.xdist_group("slurm")]

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).parent / "slurm_sandbox.sh"
PATIENCE = 240  # seconds, for machines that do much else
EPOCHS, EPOCH = 5, 4  # epochs, and steps in one
WORDS = {
    "method": "dilo",
    "data": "scenes",
    "data.train": "scenes(count=64, size=32)",
    "data.test": "scenes(count=16, size=32, seed=1)",
    "scale": "demo",
    "size": "32",
    "method.queue": "64",
    "method.split_bn": "0",
    "train.epochs": str(EPOCHS),
    "train.batch_size": "16",
    "train.log_every": "1",
    "train.checkpoint_every": "3",
    "train.keep": "9",
    "train.workers": "1",
    "evaluate": "never",
    "log.tensorboard": "false",
}


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A SLURM of its own for each process that runs tests."""
    folder = tmp_path_factory.mktemp("slurm")
    port = 6917 + 20 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("XDG_CONFIG_HOME", str(folder))  # nobody's own profile
        # Nodes share this machine's disk, and so what is compiled.
        patch.setenv("PATCHMILL_CACHE", str(folder / "cache"))
        subprocess.run([SCRIPT, "start", folder, "8", "8", str(port)], check=True)
        try:
            yield
        finally:
            subprocess.run([SCRIPT, "stop", folder], check=True)


@pytest.fixture(scope="module")
def undisturbed(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two nodes that nothing happens to."""
    run = queue(tmp_path_factory.mktemp("undisturbed"), "--nodes", "2")
    until_over(run)
    return run


def queue(out: Path, *options: str, **words: str) -> Path:
    """The folder of the run that was queued."""
    settings = [f"{key}={value}" for key, value in {**WORDS, **words}.items()]
    usual = ["--gpus-per-node", "1", "--cpus-per-task", "1", "--time", "10"]
    submit.main([*usual, "--dir", str(out), "--name", "run", *options, *settings])
    return out / "run"


def until(holds: Callable[[], object], run: Path) -> None:
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, logs(run)
        time.sleep(0.2)


def until_over(run: Path) -> None:
    """To its last epoch."""
    until(lambda: not queued(run), run)
    status = runs.read(run)
    assert status.get("state") == "done" and status["step"] == EPOCHS * EPOCH, logs(run)


def until_step(run: Path, step: int) -> None:
    """It trains, and has done so many steps."""
    until(lambda: (records.read(run).get("step") or [0])[-1] >= step or not queued(run), run)
    assert queued(run), logs(run)


def queued(run: Path) -> str:
    job = jobs.read(run)
    assert job
    return jobs.state(job)


def logs(run: Path) -> str:
    job = jobs.read(run)
    return "\n".join(it.read_text() for it in job.paths()) if job else "no job"


def identity(run: Path) -> str:
    job = jobs.read(run)
    assert job
    return job.id


def restarts(run: Path) -> int:
    return runs.read(run)["restarts"]


def control(*words: str) -> None:
    subprocess.run(["scontrol", *words], check=True, timeout=60)


def processes(run: Path) -> list[str]:
    """Those that have something to do with it."""
    found = subprocess.run(["pgrep", "-af", str(run)], capture_output=True, text=True)
    return found.stdout.splitlines()


def assert_same_learning(run: Path, other: Path) -> None:
    """The losses of all steps, and with them the samples; and what has come of them."""
    mine, its = records.read(run), records.read(other)
    for column in ("step", "loss", "lr"):
        assert mine[column] == its[column]
    networks = [checkpoint.load(checkpoint.newest(it))["method"] for it in (run, other)]
    for name, tensor in networks[0].items():
        assert torch.equal(tensor, networks[1][name]), name


def test_eight_nodes_stop_and_four_go_on_to_the_end(tmp_path):
    run = queue(tmp_path, "--nodes", "8")
    with pytest.raises(MillError, match=r"trains into .*run already \((RUNNING|PENDING).*--cancel"):
        queue(tmp_path, "--nodes", "8")
    until_step(run, 2)
    subprocess.run(["scancel", "--signal=USR1", identity(run)], check=True)  # the user's own wish
    until(lambda: not queued(run), run)
    assert runs.read(run)["state"] == "stopped" and "queued again" not in logs(run)
    assert f"in {run}/jobs/001/code" in logs(run)  # not this checkout, which somebody may edit
    stopped = runs.read(run)["step"]
    queue(tmp_path, "--nodes", "4")
    until_over(run)
    assert restarts(run) == 1
    assert records.read(run)["step"] == list(range(1, EPOCHS * EPOCH + 1)) and stopped
    assert (run / "report.html").exists()
    assert len(list((run / "jobs").iterdir())) == 2


def test_a_node_that_dies_costs_no_sample(tmp_path, undisturbed):
    run = queue(tmp_path, "--nodes", "2")
    until_step(run, 6)
    node = slurm.shown(identity(run))["NodeList"].replace("127.0.0.[", "").split("-")[-1].strip("]")
    control("update", f"nodename=127.0.0.{node}", "state=down", "reason=test")
    try:
        until(lambda: slurm.shown(identity(run)).get("Restarts") == "1", run)
    finally:
        control("update", f"nodename=127.0.0.{node}", "state=resume")
    until_over(run)
    assert restarts(run) == 1
    assert_same_learning(run, undisturbed)


def test_what_matters_more_goes_first(tmp_path, undisturbed):
    run = queue(tmp_path, "--nodes", "2")
    until_step(run, 2)
    urgent = ["sbatch", "--partition=urgent", "--nodes=8", "--gpus-per-node=8", "--wrap=sleep 1"]
    subprocess.run([*urgent, "--output=/dev/null"], check=True, stdout=subprocess.DEVNULL)
    until_over(run)
    assert restarts(run) == 1 and "queued again" in logs(run)
    assert_same_learning(run, undisturbed)


def test_a_time_limit_is_not_the_end(tmp_path, undisturbed):
    run = queue(tmp_path, "--nodes", "2")
    until_step(run, 2)
    # As if it had run for long: SLURM's signal is due at once.
    control("update", f"jobid={identity(run)}", "timelimit=3")
    until(lambda: "queued again" in logs(run), run)
    control("update", f"jobid={identity(run)}", "timelimit=10")
    until_over(run)
    assert restarts(run) == 1
    assert_same_learning(run, undisturbed)


def test_cancelled_is_cancelled(tmp_path):
    run = queue(tmp_path, "--nodes", "2")
    until_step(run, 2)
    assert processes(run)
    subprocess.run(["scancel", identity(run)], check=True)
    until(lambda: not queued(run), run)
    assert runs.read(run)["state"] == "stopped" and "queued again" not in logs(run)
    until(lambda: not processes(run), run)


def test_the_plain_script_goes_on_after_a_time_limit(tmp_path, monkeypatch, undisturbed):
    monkeypatch.setenv("PYTHON", sys.executable)
    words = [f"{key}={value}" for key, value in {**WORDS, "out": tmp_path, "name": "run"}.items()]
    asked = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1"]
    asked += ["--time=10"]
    command = ["sbatch", "--parsable", *asked, f"--output={tmp_path}/log", "cluster/train.sbatch"]
    queued = subprocess.run(
        [*command, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    run, job = tmp_path / "run", queued.stdout.strip()
    until(lambda: 2 in records.read(run).get("step", []), run)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)  # as SLURM does it
    until(lambda: runs.read(run).get("restarts") == 1 and not slurm.states([job]), run)
    assert runs.read(run)["state"] == "done", (tmp_path / "log").read_text()
    assert_same_learning(run, undisturbed)


def test_a_sweep_is_an_array(tmp_path):
    queue(tmp_path, "--sweep", "seed=0,1,2", "--nodes", "1")
    made = [tmp_path / "run" / f"seed={seed}" for seed in range(3)]
    for run in made:
        until_over(run)
    assert len({identity(run).partition("_")[0] for run in made}) == 1
    losses = [records.read(run)["loss"] for run in made]
    assert losses[0] != losses[1] != losses[2] != losses[0]


def test_what_slurm_refuses_leaves_nothing(tmp_path):
    with pytest.raises(MillError, match=r"SLURM refuses this job: .*[Ii]nvalid partition"):
        queue(tmp_path, "--partition", "nowhere")
    with pytest.raises(MillError, match=r"SLURM refuses this job: .*node"):
        queue(tmp_path, "--nodes", "16", "--dry-run")
    assert not list(tmp_path.iterdir())
