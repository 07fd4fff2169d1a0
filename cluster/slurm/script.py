"""The batch script of a job, written by submitit."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import SlurmExecutor

from patchmill.cluster.job.process import CACHES
from patchmill.cluster.resources import Resources, limit_minutes
from patchmill.cluster.slurm import container
from patchmill.training.runtime import run_folder

SNAPSHOT = "code"  # a job's copy of the code, inside its folder
UNLIMITED = 1_000_000  # requeues: a run ends after its last epoch

# Defaults: the user's environment and profile take precedence.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # ranks share the cores, and loaders start their own threads
    "NCCL_DEBUG": "WARN",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",  # the flight recorder shows where ranks were in a hang
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    CACHES: "${SLURM_TMPDIR:-/tmp}/patchmill-$USER-$SLURM_JOB_ID",
    "TRITON_CACHE_DIR": f"${CACHES}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"${CACHES}/inductor",
}

# Options of srun. GPUs stay visible to all processes of a node, which choose theirs by local rank.
BINDINGS = {
    "none": [],
    "cores": ["--cpu-bind=cores"],
    "numa": ["--cpu-bind=ldoms", "--mem-bind=local"],
}


class Executor(SlurmExecutor):
    """An executor that writes scripts even where SLURM is not installed, for dry runs."""

    @classmethod
    def affinity(cls) -> int:
        return 2


def python_command(folder: Path, image: Mapping[str, Any] | None = None) -> str:
    """A shell command that starts Python inside the code snapshot in `folder`.

    Elsewhere Python would look for modules in the user's working directory first. A signal during
    start-up would kill Python, so SIGUSR2 is ignored until then; SLURM requeues jobs it preempts.
    """
    start = """trap "" USR2; cd "$0" && exec "$@\""""
    python = container.command(image or {}, folder, sys.executable)
    return shlex.join(["sh", "-c", start, str(folder / SNAPSHOT), *python])


def executor(resources: Resources, folder: Path, name: str) -> Executor:
    """An executor whose logs and pickles go to `folder`, next to the code snapshot."""
    slurm = Executor(
        folder, max_num_timeout=UNLIMITED, python=python_command(folder, resources.container)
    )
    slurm.update_parameters(**_parameters(resources, folder, name))
    return slurm


def text(slurm: Executor, tasks: int) -> str:
    """The script passed to sbatch, for an array of `tasks` if there are several."""
    if tasks > 1:
        slurm.parameters["map_count"] = tasks
    return slurm._make_submission_file_text(slurm._submitit_command_str, "")


def _parameters(resources: Resources, folder: Path, name: str) -> dict[str, Any]:
    cpus = resources.cpus_per_task
    options: dict[str, Any] = {"requeue" if resources.requeue else "no-requeue": True}
    if resources.mem is not None:
        options["mem"] = resources.mem
    return dict(
        job_name=name,
        nodes=resources.nodes,
        ntasks_per_node=resources.tasks,
        gpus_per_node=resources.gpus_per_node or None,
        cpus_per_task=cpus,
        time=limit_minutes(resources.time),
        partition=resources.partition,
        account=resources.account,
        qos=resources.qos,
        constraint=resources.constraint,
        dependency=resources.dependency,
        comment=resources.comment,
        signal_delay_s=max(resources.signal_delay, _measured_delay(folder.parents[1])),
        array_parallelism=resources.array_parallelism,
        stderr_to_stdout=True,
        wckey=None,  # clusters without wckeys refuse it
        # By default ranks keep running after one fails, and srun ignores sbatch's --cpus-per-task.
        srun_args=[
            "--kill-on-bad-exit=1",
            f"--cpus-per-task={cpus}",
            *BINDINGS[resources.bind],
            *container.srun_options(resources.container, folder),
        ],
        setup=_setup(resources, folder),
        additional_parameters=options | resources.slurm,
    )


def _measured_delay(run: Path) -> int:
    """Seconds before the time limit at which a run needs SLURM's signal, from its last checkpoint.

    Twice that checkpoint's time plus one minute, as SLURM's signals are accurate to a minute.
    """
    return ceil(2 * run_folder.read_status(run).get("checkpoint_s", 0)) + 60


def _setup(resources: Resources, folder: Path) -> list[str]:
    """Shell lines before srun."""
    defaults = [f'export {name}="${{{name}:-{text}}}"' for name, text in ENVIRONMENT.items()]
    profile = [f"export {name}={shlex.quote(str(text))}" for name, text in resources.env.items()]
    flight = f'export TORCH_NCCL_DEBUG_INFO_TEMP_FILE="{folder}/flight-$SLURM_JOB_ID-rank"'
    snapshot = shlex.quote(str(folder / SNAPSHOT))  # before the paths of the user's own methods
    code = f'export PYTHONPATH={snapshot}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    notify = _notify(resources.notify, folder) if resources.notify else ["notify() { :; }"]
    return [*resources.setup, *profile, *defaults, flight, code, *notify, *_merge_logs(folder)]


def _notify(command: str, folder: Path) -> list[str]:
    """Define `notify EVENT`, which runs the profile's command, and call it for the start.

    A command that fails or hangs does not affect the job.
    """
    run = shlex.quote(str(folder.parents[1]))
    return [
        "notify() {",
        f"  PATCHMILL_EVENT=$1 PATCHMILL_RUN={run} PATCHMILL_JOB=$SLURM_JOB_ID \\",
        f"    timeout 60 sh -c {shlex.quote(command)} >&2 </dev/null || "
        'echo "notify: the command failed, for the event $1" >&2',
        "}",
        "notify started",
    ]


def _merge_logs(folder: Path) -> list[str]:
    """Run merged_log.py alongside the ranks, and send it their exit code at the end.

    The script ignores SIGTERM: it ends after the ranks, with their exit code.
    """
    start = shlex.join([sys.executable, "-m", "patchmill.cluster.job.merged_log", str(folder)])
    return [
        f"exec 9> >(cd {shlex.quote(str(folder / SNAPSHOT))} && exec {start})",
        "merging=$!",
        """trap 'code=$?; trap "" PIPE; echo $code >&9; exec 9>&-; wait $merging; """
        f"""case $code in 0) notify done;; {run_folder.STOPPED}) notify stopped;; """
        """*) notify failed;; esac' EXIT""",
        "trap : TERM",
    ]
