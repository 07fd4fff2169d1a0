"""Plans, output and refusals of submit.py, before anything is written or queued."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from patchmill.cluster import job_plan, resources, submit
from patchmill.cluster.job import record, snapshot
from patchmill.cluster.slurm import commands
from patchmill.loaders.common.errors import MillError
from patchmill.training import measurements
from patchmill.training.config import compose

ROOT = Path(__file__).resolve().parents[2]
OVERRIDES = ["method=dilo", "data=scenes", "train.device=cpu", "train.batch_size=128"]
OVERRIDES += ["data.train=scenes(count=2000, size=64)", "optim.lr=0.06", "method.split_bn=0"]
OVERRIDES += ["train.epochs=40", "optim.warmup=1"]


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No SLURM, no user profile, and an empty working directory."""
    monkeypatch.setattr(commands, "is_available", lambda: False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def dry(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    submit.main(["--dry-run", *OVERRIDES, *argv])
    assert not Path("runs").exists()
    return capsys.readouterr().out


def refused(*argv: str) -> str:
    with pytest.raises(MillError) as caught:
        submit.main([*OVERRIDES, *argv])
    assert not Path("runs").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_dry_run_shows_plan_and_script(capsys):
    out = dry(
        capsys, "--nodes", "8", "--partition", "gpu", "--slurm", "exclude=n1",
        "--slurm", "exclusive",
    )  # fmt: skip
    for line in (
        "ranks            8 x 8 = 64",
        "batch of a rank  2",
        "learning rate    0.06 at its peak, after 1 epoch of warm-up",
        "samples          2,000, of which a rank sees 30 an epoch",
        "#SBATCH --nodes=8",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --partition=gpu",
        "#SBATCH --exclude=n1",
        "#SBATCH --exclusive",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=USR2@180",
        "#SBATCH --time=1440",
    ):
        assert f"\n{line}\n" in out, line
    (step,) = [line for line in out.splitlines() if line.startswith("srun")]
    assert "--kill-on-bad-exit=1 --cpus-per-task=8" in step
    assert "wckey" not in out


def test_a_dry_run_shows_the_plan_of_what_is_refused_too(capsys):
    argv = ["train.batch_size=64", "method.split_bn=4"]  # of which 64 ranks are parts already
    with pytest.raises(MillError, match="each of 64 ranks has one image at a time, which batch"):
        submit.main(["--dry-run", "--nodes", "8", *OVERRIDES, *argv])
    assert "\nlearning rate " in (out := capsys.readouterr().out) and "\nsrun " in out


def test_a_dry_run_of_a_sweep(capsys):
    out = dry(
        capsys, "--sweep", "seed=range(0,3)", "--sweep", "optim.lr=0.1,0.2", "--no-requeue",
        "--array-parallelism", "2",
    )  # fmt: skip
    assert "sweep (6 runs)\n" in out
    for rate in ("0.1", "0.2"):  # a line for each value that runs differ in
        peak = f"{rate} at its peak, after 1 epoch of warm-up"
        assert f"\nlearning rate    {peak} [3 runs, such as seed=0,lr={rate}]\n" in out
    assert out.count("\nlearning rate ") == 2 and out.count("\nsteps ") == 1
    assert "#SBATCH --array=0-5%2\n" in out and "#SBATCH --no-requeue\n" in out


def test_options_override_profiles(capsys, tmp_path):
    own = tmp_path / "config" / "patchmill" / "cluster.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(
        "cluster: cpus\npartition: lab\nnodes: 2\nenv: {NCCL_SOCKET_IFNAME: ib0}\n"
        "setup: [module load cuda]\nslurm: {nice: 10}\n"
    )
    out = dry(capsys, "--partition", "urgent")
    assert "ranks            2 x 1 = 2\n" in out and "gpus" not in out
    assert "--partition=urgent" in out and "--nice=10" in out
    assert out.index("module load cuda") < out.index("export NCCL_SOCKET_IFNAME=ib0")
    own.write_text("partitoin: lab\n")
    assert "there is no setting partitoin; did you mean 'partition'?" in refused("--dry-run")
    assert "there is no cluster 'cpu'; did you mean 'cpus'?" in refused("--cluster", "cpu")


def test_hours_come_from_measured_throughput(tmp_path):
    rows = [{"name": "decode", "images_per_s": 9}, {"name": "loader", "images_per_s": 100.0}]
    path = tmp_path / "throughput.json"
    path.write_text(json.dumps({"rows": rows}))
    config = compose.compose(OVERRIDES)
    needs = resources.Resources(nodes=2, gpus_per_node=4, cpus_per_task=3)
    seen = 2000 // 128 * 128 * config.train.epochs
    for device, workers, rate in (("cpu", None, 200), ("cpu", 6, 400), ("cuda", 6, 800)):
        rows[1]["workers"] = workers
        path.write_text(json.dumps({"rows": rows, "device": device}))
        planned = job_plan.make(config, needs, str(path))
        assert planned.images_per_s == rate
        assert planned.hours == pytest.approx(seen / rate / 3600)
    path.write_text("{}")
    with pytest.raises(MillError, match=r"has no throughput of a loader"):
        job_plan.make(config, needs, str(path))


def test_the_plan_expects_the_hours_of_an_earlier_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measurements, "RESULTS", tmp_path / "nowhere")
    assert "nothing like it was measured on a CPU" in dry(capsys)  # as train.device=cpu
    auto = "train.device=auto"
    out = dry(capsys, "--nodes", "2", auto)
    assert "\nhours            unknown: nothing like it was measured on a GPU; to measure it" in out
    assert "train.batch_size=8 --peers '' --json benchmarks/results/training-dilo-scenes" in out
    assert "for a lower bound by a node's loader: patchmill bench throughput" in out
    before = tmp_path / "earlier" / "before"
    before.mkdir(parents=True)
    compose.save(compose.compose(OVERRIDES), before)
    (before / "log.csv").write_text("step,images_per_s\n1,5\n2,5\n3,5\n")
    (before / "status.json").write_text('{"machine": "4 x NVIDIA H200"}')
    out = dry(capsys, "--nodes", "2", "--dir", "earlier", "--time", "8", "--no-requeue", auto)
    hours = 2000 // 128 * 128 * 40 / 20 / 3600
    (line,) = [line for line in out.splitlines() if line.startswith("hours")]
    assert line.startswith(f"hours            {hours:.1f} hours: 76,800 images at 20 a second on ")
    assert "assumed that 16 ranks and its 4 are equally fast each" in line
    needs = resources.Resources(nodes=2, time="8", requeue=False)
    (warning,) = job_plan.make(compose.compose([*OVERRIDES, "out=earlier", auto]), needs).warnings()
    assert "the run takes about 1.07 hours or more, but the job ends after 8" in warning


def test_the_plan_warns_of_settings_that_may_not_be_intended(tmp_path):
    path = tmp_path / "throughput.json"
    path.write_text(json.dumps({"rows": [{"name": "loader", "images_per_s": 1.0}]}))
    argv = [
        *OVERRIDES,
        "train.workers=9",
        "data=shards",
        "data.steps=5",
        "data.train=file:///a-{0..9}.tar",
    ]
    needs = resources.Resources(tasks_per_node=8, requeue=False, time="60")
    streamed, shared, ends = job_plan.make(compose.compose(argv), needs, str(path)).warnings()
    assert (
        "10 streamed shards do not divide evenly among 8 ranks: 2 of them read 2, the others 1"
        in streamed
    )
    assert "train.workers=9 share the 8 cores of a process" in shared
    assert "the job ends after 60 and is not requeued" in ends
    assert not job_plan.make(compose.compose(OVERRIDES), resources.Resources()).warnings()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["data.test=nowhere"], "nowhere"),
        (["data.train=file:///a-{0..9}.tar"], "set the batches per epoch, as in data.steps=1000"),
        (
            ["data.train=file:///a-{0..3}.tar", "data.steps=9"],
            "4 streamed shards cannot be distributed to 8",
        ),
        (["data.masks=nowhere.masks"], "nowhere.masks"),
    ],
)
def test_data_that_training_would_refuse(argv, said):
    assert said in refused(*argv, "--dry-run")


def test_mistakes_are_refused_in_one_sentence(tmp_path, monkeypatch):
    assert "train.batch_size=128 cannot be divided among 24 ranks: use 120" in refused(
        "--dry-run", "--nodes", "3"
    )
    assert "there is no setting 'optim.rl'" in refused("optim.rl=1")
    assert "unrecognized arguments: --node" in refused("--node", "8")
    assert "--nodes 8 needs SLURM" in refused("--nodes", "8")
    assert "has 2000 samples, fewer than" in refused("train.batch_size=4096", "method.queue=4096")
    assert "not a multiple of a batch" in refused("method.queue=100")
    assert "cannot sweep over 'seed=1'" in refused("--sweep", "seed=1")
    assert "time=1 leaves no time to train" in refused("--time", "1", "--dry-run")
    assert "time=soon is not a time limit" in refused("--time", "soon")
    assert "no_such_folder" in refused("data=folder", "data.root=no_such_folder")
    assert "chosen by an option: --cluster cpus" in refused("cluster=cpus")
    (tmp_path / "file").write_text("")
    assert "file is not a folder: choose another --dir" in refused("--dir", "file")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "no permission to write to" in refused("--dir", "new/runs")
    monkeypatch.undo()


def test_a_disk_without_room_for_checkpoints_is_refused(monkeypatch):
    from patchmill.cluster import preflight

    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: usage)
    assert "has 0.0 GB left, and checkpoints take up to" in refused("--dry-run")


def test_a_failed_submission_leaves_nothing(tmp_path, monkeypatch):
    def fail(folder: Path) -> str:
        folder.mkdir()
        raise MillError("no room")

    monkeypatch.setattr(snapshot, "take", fail)
    assert refused("--local") == "no room"
    run = tmp_path / "kept" / "run"
    run.mkdir(parents=True)
    (run / "log.csv").write_text("")
    with pytest.raises(MillError):
        submit.main([*OVERRIDES, "--local", "--dir", "kept", "--name", "run"])
    assert sorted(it.name for it in run.iterdir()) in (["log.csv"], [".lock", "jobs", "log.csv"])
    assert not list(run.glob("jobs/*"))


def test_a_run_that_trains_is_not_given_to_another_job(tmp_path):
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    record.write(run, record.new(str(os.getpid()), tmp_path, True, "abc"))
    with pytest.raises(MillError, match=rf"job {os.getpid()} trains into .* already \(RUNNING\)"):
        submit.main([*OVERRIDES, "--local", "--name", "run"])


def test_a_run_with_other_settings_is_not_continued(tmp_path):
    run = tmp_path / "runs" / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "step-00000001.pt").write_bytes(b"")
    compose.save(compose.compose(OVERRIDES), run)
    for argv in (["optim.lr=0.5"], ["resume=never"]):
        with pytest.raises(MillError, match=r"holds (another run: optim.lr was|a run already)"):
            submit.main([*OVERRIDES, "--dry-run", "--name", "run", *argv])
    submit.main([*OVERRIDES, "--dry-run", "--name", "run"])


def test_a_file_that_vanishes_meanwhile_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [snapshot.ROOT / "setup.cfg", snapshot.ROOT / "loaders" / "recompiled.nbc"]
    monkeypatch.setattr(snapshot, "_files", lambda: files)
    snapshot.take(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["setup.cfg"]


def test_the_copy_of_the_code_is_what_runs(tmp_path):
    from patchmill.cluster.slurm import script

    snapshot.take(tmp_path / script.SNAPSHOT)
    code = "import patchmill.cluster.job.record as it, patchmill.loaders.build; print(it.__file__)"
    command = f"{script.python_command(tmp_path)} -c '{code}'"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / script.SNAPSHOT / "cluster" / "job" / "record.py")


def test_without_slurm_it_runs_here_to_a_report(tmp_path):
    """Two ranks, started by the command."""
    small = [
        "data.train=scenes(count=32, size=32)", "data.test=none", "size=32", "train.epochs=1",
        "train.batch_size=8", "method.queue=16", "method.split_bn=0", "evaluate=never",
        "log.tensorboard=false", "train.log_every=1",
    ]  # fmt: skip
    command = [sys.executable, str(ROOT / "cluster" / "submit.py"), "--local", "--name", "run"]
    began = time.time()
    done = subprocess.run(
        [*command, "--tasks-per-node", "2", *OVERRIDES, *small], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "run"
    assert (run / "report.html").exists() and "[1] " in done.stdout
    job = record.read(run)
    assert job and job.local and job.submitted >= began and not record.state(job)
    assert "patchmill submit --local" in (run / "jobs" / "001" / "command.txt").read_text()


def test_scripts_of_this_folder_hide_no_package():
    """A script's folder is first on sys.path: its files must not shadow other modules."""
    names = {path.stem for path in (ROOT / "cluster").iterdir() if not path.stem.startswith("_")}
    assert {"job", "slurm", "submit"} <= names
    others = sys.stdlib_module_names | metadata.packages_distributions().keys()
    assert not names & others
