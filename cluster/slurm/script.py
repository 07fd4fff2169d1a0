"""The job as submitit and SLURM are told it."""

from __future__ import annotations

import shlex
import sys
from math import ceil
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import SlurmExecutor

from patchmill.cluster.job.process import CACHES
from patchmill.cluster.resources import Resources, minutes
from patchmill.training.runtime import run_folder

SNAPSHOT = "code"
FOREVER = 1_000_000  # requeues: what ends a run is its last epoch

# Each is a default: what the user's environment or profile says holds.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # processes share the cores, and loaders bring their own threads
    "NCCL_DEBUG": "WARN",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",  # the flight recorder says where ranks were when one hung
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    CACHES: "${SLURM_TMPDIR:-/tmp}/patchmill-$USER-$SLURM_JOB_ID",
    "TRITON_CACHE_DIR": f"${CACHES}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"${CACHES}/inductor",
}


class Executor(SlurmExecutor):
    """Writes scripts also where there is no SLURM to give them to."""

    @classmethod
    def affinity(cls) -> int:
        return 2


def python(folder: Path) -> str:
    """Python, as a command, with the copy of the code in `folder`.

    It starts inside that copy, before which it would find the user's folder. A signal that comes
    while it starts would end it, and is ignored: SLURM requeues what it preempts by itself.
    """
    start = """trap "" USR2; cd "$0" && exec "$@\""""
    return shlex.join(["sh", "-c", start, str(folder / SNAPSHOT), sys.executable])


def executor(resources: Resources, folder: Path, name: str) -> Executor:
    """`folder` is where logs and pickles go; the code to run is in a folder of it."""
    made = Executor(folder, max_num_timeout=FOREVER, python=python(folder))
    made.update_parameters(**_parameters(resources, folder, name))
    return made


def text(made: Executor, count: int) -> str:
    """The script that sbatch gets, for so many runs."""
    if count > 1:
        made.parameters["map_count"] = count
    return made._make_submission_file_text(made._submitit_command_str, "")


def _parameters(resources: Resources, folder: Path, name: str) -> dict[str, Any]:
    cpus = resources.cpus_per_task
    more: dict[str, Any] = {"requeue" if resources.requeue else "no-requeue": True}
    if resources.mem is not None:
        more["mem"] = resources.mem
    return dict(
        job_name=name,
        nodes=resources.nodes,
        ntasks_per_node=resources.tasks,
        gpus_per_node=resources.gpus_per_node or None,
        cpus_per_task=cpus,
        time=minutes(resources.time),
        partition=resources.partition,
        account=resources.account,
        qos=resources.qos,
        constraint=resources.constraint,
        dependency=resources.dependency,
        comment=resources.comment,
        signal_delay_s=max(resources.signal_delay, _seen(folder.parents[1])),
        array_parallelism=resources.array_parallelism,
        stderr_to_stdout=True,
        wckey=None,  # which clusters refuse that do not know it
        # Ranks outlive one that failed, and srun forgets sbatch's cores, unless told otherwise.
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"],
        setup=_setup(resources, folder),
        additional_parameters=more | resources.slurm,
    )


def _seen(run: Path) -> int:
    """Seconds that a run which goes on needs to be told before its end, by what it took so far.

    Twice as long as its last checkpoint, and a minute, which is as exact as SLURM's signals are.
    """
    return ceil(2 * run_folder.read(run).get("checkpoint_s", 0)) + 60


def _setup(resources: Resources, folder: Path) -> list[str]:
    usual = [f'export {name}="${{{name}:-{text}}}"' for name, text in ENVIRONMENT.items()]
    own = [f"export {name}={shlex.quote(str(text))}" for name, text in resources.env.items()]
    flight = f'export TORCH_NCCL_DEBUG_INFO_TEMP_FILE="{folder}/flight-$SLURM_JOB_ID-rank"'
    code = f"export PYTHONPATH={shlex.quote(str(folder / SNAPSHOT))}"
    return [*resources.setup, *own, *usual, flight, code, *_merged(folder)]


def _merged(folder: Path) -> list[str]:
    """The logs of all ranks as one, by a process that lives as long as the script.

    SIGTERM is left to the ranks: the script ends when they have, and says how.
    """
    start = shlex.join([sys.executable, "-m", "patchmill.cluster.job.merged_log", str(folder)])
    return [
        f"exec 9> >(cd {shlex.quote(str(folder / SNAPSHOT))} && exec {start})",
        "merging=$!",
        """trap 'code=$?; trap "" PIPE; echo $code >&9; exec 9>&-; wait $merging' EXIT""",
        "trap : TERM",
    ]
