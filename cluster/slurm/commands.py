"""SLURM's own commands: what is queued, what becomes of it, and what it refuses."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from patchmill.loaders.common.errors import MillError

PATIENCE = 60  # seconds, for a busy controller
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "TIMEOUT",
}  # fmt: skip
# A job that is submitted from inside another must not take that one's for its own.
INHERITED = re.compile(r"(SLURM|SUBMITIT)_(?!CONF$).*|RANK|LOCAL_RANK|WORLD_SIZE")


def is_there() -> bool:
    """Its programs alone do not make a cluster: they must know of one."""
    if not (shutil.which("sbatch") and shutil.which("srun")):
        return False
    return "configuration source" not in _run(["scontrol", "ping"]).stderr


def states(ids: Sequence[str] = ()) -> dict[str, str]:
    """Job -> its state, as PENDING (Resources), of the jobs that are queued or run.

    A MillError where SLURM does not answer: that a job is gone cannot be told then.
    """
    words = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]
    done = _run(words + ([f"--jobs={','.join(ids)}"] if ids else ["--me"]))
    if done.returncode:
        if "Invalid job id" in done.stderr:
            return {}
        raise MillError(f"squeue does not answer: {sentence(done.stderr)}")
    rows = [line.split("|", 2) for line in done.stdout.splitlines()]
    return {id: _state(state, why) for id, state, why in rows if state not in OVER}


def _state(state: str, why: str) -> str:
    return f"{state} ({why})" if state == "PENDING" and why != "None" else state


def shown(id: str) -> dict[str, str]:
    """What `scontrol show job` says of one job; empty where it says nothing."""
    done = _run(["scontrol", "--oneliner", "show", "job", id])
    if done.returncode:
        return {}
    return dict(re.findall(r"(\w+)=(\S*)", done.stdout))


def requeue(id: str) -> str:
    """The reason, where that was refused."""
    done = _run(["scontrol", "requeue", id])
    return sentence(done.stderr) if done.returncode else ""


def cancel(id: str) -> None:
    done = _run(["scancel", id])
    if done.returncode:
        raise MillError(f"job {id} cannot be cancelled: {sentence(done.stderr)}")


def try_script(script: str) -> str:
    """What sbatch would do with it; a MillError if it would refuse. Nothing is queued."""
    with clean_environment():
        done = _run(["sbatch", "--test-only"], script)
    if done.returncode:
        raise MillError(f"SLURM refuses this job: {sentence(done.stderr)}")
    return sentence(done.stderr)


def sentence(text: str) -> str:
    """The gist of what SLURM's commands print."""
    lines = [re.sub(r"^\w+: (error: )?", "", line).strip() for line in text.splitlines()]
    said = [line for line in lines if line and "allocation failure" not in line]
    return "; ".join(said or [line for line in lines if line]) or "it gives no reason"


@contextlib.contextmanager
def clean_environment() -> Iterator[None]:
    inherited = {name: text for name, text in os.environ.items() if INHERITED.fullmatch(name)}
    for name in inherited:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(inherited)


def _run(words: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, input=text, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise MillError(f"{words[0]} gives no answer in {PATIENCE} seconds: try later") from None
    except OSError as error:
        raise MillError(f"cannot run {words[0]}: {error.strerror}; is SLURM here?") from None


def is_due(number: int, job: Mapping[str, str]) -> bool:
    """Whether a job that a signal stopped is to be queued again; `job` is what SLURM says of it.

    SIGUSR2 is what the script asks SLURM for before the time limit, and before preemption where
    the cluster allows that. SIGTERM is preemption elsewhere, but also scancel and the user.
    """
    if job.get("JobState") not in ("RUNNING", "COMPLETING", "PREEMPTED"):
        return False
    preempted = job.get("PreemptTime", "None") not in ("", "None", "N/A", "Unknown")
    return number == signal.SIGUSR2 or (number == signal.SIGTERM and preempted)
