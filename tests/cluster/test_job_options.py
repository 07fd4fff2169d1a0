"""Containers, bindings, notifications, dependencies and the best run: scripts and output."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from patchmill.cluster import resources, status, submit
from patchmill.cluster.job import record
from patchmill.cluster.slurm import commands, script
from patchmill.loaders.common.errors import MillError

OVERRIDES = ["method=moco", "data=scenes", "scale=demo", "method.split_bn=0", "train.batch_size=64"]
OVERRIDES += ["data.train=scenes(count=200, size=32)", "method.queue=128"]


@pytest.fixture(autouse=True)
def an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(commands, "is_available", lambda: False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def profile(text: str) -> str:
    path = resources.user_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return text


def dry(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    submit.main(["--dry-run", *OVERRIDES, *argv])
    return capsys.readouterr().out


# --------------------------------------------------------------------------------------- containers


def test_apptainer_starts_python_in_the_image(capsys, tmp_path):
    (tmp_path / "torch.sif").touch()
    profile("container: {image: ./torch.sif, mounts: [/data], options: [--ipc]}")
    out = dry(capsys)
    assert "apptainer exec --nv --bind" in out
    assert f"--bind {tmp_path} --bind /data --ipc ./torch.sif python3 -u -m submitit" in out


def test_pyxis_gets_options_of_srun(capsys, tmp_path):
    profile(
        "container: {image: nvcr.io#nvidia/pytorch:25.10-py3, runtime: pyxis, "
        "mounts: ['/data:/d'], python: python}"
    )
    out = dry(capsys)
    assert "--container-image=nvcr.io#nvidia/pytorch:25.10-py3" in out
    assert f"{tmp_path}:{tmp_path},/data:/d" in out
    assert "apptainer" not in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("container: {runtime: apptainer}", "container needs an image"),
        ("container: {image: a, imag: b}", "container has no imag; did you mean 'image'"),
        ("container: {image: a, runtime: docker}", "must be apptainer or pyxis, not 'docker'"),
        ("container: {image: a, mounts: /data}", "container.mounts must be a list of strings"),
        ("container: {image: [a]}", "container.image must be a string"),
        ("container: {image: /no/such.sif}", "there is no container image /no/such.sif"),
        ("container: a.sif", "container must be a mapping"),
        ("bind: sockets", "bind"),
    ],
)
def test_a_wrong_profile_is_refused_in_one_sentence(text, said):
    profile(text)
    with pytest.raises(MillError) as caught:
        submit.main(["--dry-run", *OVERRIDES])
    assert said in str(caught.value) and "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------- bindings


def test_processes_are_bound_to_numa_nodes(capsys):
    assert "--cpu-bind=ldoms --mem-bind=local" in dry(capsys, "--bind", "numa")
    assert "--cpu-bind=cores" in dry(capsys, "--bind", "cores")
    assert "-bind" not in dry(capsys)


# ------------------------------------------------------------------------------------ notifications


@pytest.mark.parametrize(("code", "event"), [(0, "done"), (75, "stopped"), (1, "failed")])
def test_the_command_hears_of_the_start_and_the_end(tmp_path, code, event):
    command = 'echo "$PATCHMILL_EVENT $PATCHMILL_JOB $PATCHMILL_RUN" >> heard'
    run = tmp_path / "runs" / "a b"
    lines = [*script._notify(command, run / "jobs" / "001"), "exec 9>/dev/null", "merging=$$"]
    lines += [line for line in script._merge_logs(run) if "trap 'code" in line]
    text = "\n".join(lines).replace("wait $merging", ":")
    done = subprocess.run(
        ["bash", "-c", f"{text}\nexit {code}"], cwd=tmp_path, env={"SLURM_JOB_ID": "7"}, check=False
    )
    assert done.returncode == code
    assert (tmp_path / "heard").read_text() == f"started 7 {run}\n{event} 7 {run}\n"


def test_a_command_that_fails_does_not_disturb_the_job(tmp_path):
    text = "\n".join(script._notify("exit 3", tmp_path / "jobs" / "001"))
    done = subprocess.run(
        ["bash", "-ec", f"{text}\necho goes on"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "goes on\n"
    assert done.stderr == "notify: the command failed, for the event started\n"


# ------------------------------------------------------------------------------------- dependencies


def test_a_job_starts_after_others(capsys, tmp_path):
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    record.write(run, record.new("41", tmp_path, False, "abc"))
    out = dry(capsys, "--after", str(run), "--after", "17", "--dependency", "singleton")
    assert "#SBATCH --dependency=singleton,afterok:41:17" in out
    with pytest.raises(MillError, match="does not belong to a job"):
        submit.main(["--dry-run", *OVERRIDES, "--after", "runs/none"])
    with pytest.raises(MillError, match="--after is for jobs in SLURM's queue"):
        submit.main([*OVERRIDES, "--after", "17"])


# ------------------------------------------------------------------------------------- the best run


def evaluated(run: Path, *rows: dict[str, object]) -> None:
    run.mkdir(parents=True)
    (run / "status.json").write_text(json.dumps({"state": "done", "time": 0, "epoch": 4.0}))
    (run / "evaluations.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_the_best_run_comes_first(capsys, tmp_path):
    evaluated(tmp_path / "runs" / "a", {"step": 1, "epoch": 2, "knn": 0.25})
    evaluated(
        tmp_path / "runs" / "b",
        {"step": 1, "epoch": 2, "knn": 0.75},
        {"step": 2, "epoch": 4, "knn": 0.5},
        {"step": 3, "epoch": 6, "knn": float("nan")},
    )
    evaluated(tmp_path / "runs" / "c")
    status.main(["--best", "knn"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[-4:] == ["best", "knn", "at", "epoch"]
    assert [row.split()[0] for row in rows] == ["runs/b", "runs/a", "runs/c"]
    assert rows[0].split()[-2:] == ["0.75", "2"]
    status.main(["--best", "knn", "--json"])
    assert json.loads(capsys.readouterr().out)[1]["best knn"] == "0.25"
    with pytest.raises(MillError, match="no run has been evaluated by linear: there are knn"):
        status.main(["--best", "linear"])
