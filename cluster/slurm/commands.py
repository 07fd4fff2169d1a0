"""SLURM's command-line programs: query, requeue and cancel jobs, and test a batch script."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from patchmill.loaders.common.errors import MillError

TIMEOUT = 60  # seconds, for a busy controller
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "TIMEOUT",
}  # fmt: skip
# A job submitted from inside another must not inherit that job's variables.
INHERITED = re.compile(r"(SLURM|SUBMITIT)_(?!CONF$).*|RANK|LOCAL_RANK|WORLD_SIZE")


def is_available() -> bool:
    """True if SLURM's programs are installed and configured for a cluster."""
    if not (shutil.which("sbatch") and shutil.which("srun")):
        return False
    return "configuration source" not in _run(["scontrol", "ping"]).stderr


def states(ids: Sequence[str] = ()) -> dict[str, str]:
    """Map queued and running jobs (`ids`, or all of this user) to states: `PENDING (Resources)`.

    Raise a MillError if SLURM does not answer, as it is then unknown whether a job has ended.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]
    done = _run(command + ([f"--jobs={','.join(ids)}"] if ids else ["--me"]))
    if done.returncode:
        if "Invalid job id" in done.stderr:
            return {}
        raise MillError(f"squeue does not answer: {message(done.stderr)}")
    rows = [line.split("|", 2) for line in done.stdout.splitlines()]
    return {id: _with_reason(state, why) for id, state, why in rows if state not in ENDED}


def _with_reason(state: str, why: str) -> str:
    return f"{state} ({why})" if state == "PENDING" and why != "None" else state


def job_fields(id: str) -> dict[str, str]:
    """The fields of `scontrol show job`; empty if it fails."""
    done = _run(["scontrol", "--oneliner", "show", "job", id])
    if done.returncode:
        return {}
    return dict(re.findall(r"(\w+)=(\S*)", done.stdout))


def requeue_if_due(job: str, number: int) -> None:
    """Requeue this job if the signal that stopped it calls for that, and print the outcome."""
    if should_requeue(number, job_fields(job)):
        done = _run(["scontrol", "requeue", job])
        failed = f"SLURM does not requeue job {job}: {message(done.stderr)}"
        print(failed if done.returncode else f"job {job} is requeued")


def should_requeue(number: int, job: Mapping[str, str]) -> bool:
    """Decide from the signal that stopped a job and from its `job_fields`.

    The script asks SLURM to send SIGUSR2 before the time limit, and before preemption where the
    cluster allows that. Elsewhere SIGTERM means preemption, but also scancel and the user.
    """
    if job.get("JobState") not in ("RUNNING", "COMPLETING", "PREEMPTED"):
        return False
    preempted = job.get("PreemptTime", "None") not in ("", "None", "N/A", "Unknown")
    return number == signal.SIGUSR2 or (number == signal.SIGTERM and preempted)


def cancel(id: str) -> None:
    done = _run(["scancel", id])
    if done.returncode:
        raise MillError(f"job {id} cannot be cancelled: {message(done.stderr)}")


def check_script(script: str) -> str:
    """Ask sbatch when it would run a script; raise a MillError if it refuses. Queues nothing."""
    with clean_environment():
        done = _run(["sbatch", "--test-only"], script)
    if done.returncode:
        raise MillError(f"SLURM refuses this job: {message(done.stderr)}")
    return message(done.stderr)


def message(text: str) -> str:
    """One sentence from what SLURM's programs print on stderr."""
    lines = [re.sub(r"^\w+: (error: )?", "", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    essential = [line for line in lines if "allocation failure" not in line]
    return "; ".join(essential or lines) or "it gives no reason"


@contextlib.contextmanager
def clean_environment() -> Iterator[None]:
    """Remove the environment variables of the job that this process may be part of."""
    inherited = {name: text for name, text in os.environ.items() if INHERITED.fullmatch(name)}
    for name in inherited:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(inherited)


def _run(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise MillError(f"{command[0]} did not answer in {TIMEOUT} seconds: try again") from None
    except OSError as error:
        raise MillError(
            f"cannot run {command[0]}: {error.strerror}; is SLURM installed here?"
        ) from None
