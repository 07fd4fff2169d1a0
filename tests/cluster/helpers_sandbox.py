"""Queue, watch and disturb jobs on the tests' SLURM."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from patchmill.cluster import submit
from patchmill.cluster.job import record
from patchmill.training.runtime import records, run_folder

SCRIPT = Path(__file__).parent / "slurm_sandbox.sh"
NODES = 8
PATIENCE = 400  # seconds, for busy machines
EPOCHS, EPOCH = 3, 4  # epochs, and steps in one
STEPS = EPOCHS * EPOCH
OVERRIDES = {
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


@contextlib.contextmanager
def numbers() -> Iterator[tuple[int, int]]:
    """Yield the first port and the first job id for a SLURM, both unused on this machine.

    The ports stay bound: others cannot bind them, but SLURM can, as it sets SO_REUSEADDR.
    """
    tries = list(range(200))  # ports from 10,000 on; ranks of 60 jobs each meet from 20,000 on
    random.SystemRandom().shuffle(tries)
    for it in tries:
        port = 10_000 + 40 * it
        with contextlib.ExitStack() as held:
            try:
                for number in range(port, port + 1 + NODES):
                    found = held.enter_context(socket.socket())
                    found.bind(("0.0.0.0", number))
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            except OSError:
                continue
            yield port, 1 + 60 * it
            return
    raise RuntimeError("no ports are free from 10,000 to 18,000")


def queue(out: Path, *options: str, **overrides: str) -> Path:
    """Queue a run; return its folder."""
    settings = [f"{key}={value}" for key, value in {**OVERRIDES, **overrides}.items()]
    usual = ["--gpus-per-node", "1", "--cpus-per-task", "1", "--time", "10"]
    submit.main([*usual, "--dir", str(out), "--name", "run", *options, *settings])
    return out / "run"


def on(first: int, last: int) -> list[str]:
    """Options for a job on these nodes only."""
    return ["--nodes", str(last - first + 1), "--slurm", f"nodelist=127.0.0.[{first}-{last}]"]


class Journeys:
    """Runs that train concurrently, each with its disturbance."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(16)
        self._begun: dict[str, Future[Path]] = {}

    def begin(self, name: str, happens: Callable[[Path], None], run: Path) -> None:
        def watch() -> Path:
            happens(run)
            return run

        self._begun[name] = self._pool.submit(watch)

    def __getitem__(self, name: str) -> Path:
        """Wait for the run's end; return its folder."""
        return self._begun[name].result()

    def __enter__(self) -> Journeys:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


# ------------------------------------------------------------------------------- how far a run is


def until(holds: Callable[[], object], run: Path) -> None:
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, logs(run)
        time.sleep(0.2)


def until_done(run: Path) -> None:
    """Wait for its last epoch."""
    until_over(run)
    status = run_folder.read_status(run)
    assert status.get("state") == "done" and status["step"] == STEPS, logs(run)


def until_over(run: Path) -> None:
    until(lambda: not queued(run), run)


def until_step(run: Path, step: int) -> None:
    """Wait until a running job has done this many steps."""
    until(lambda: (records.read(run).get("step") or [0])[-1] >= step or not queued(run), run)
    assert queued(run), logs(run)


def queued(run: Path) -> str:
    return record.state(job(run))


def job(run: Path) -> record.Job:
    found = record.read(run)
    assert found
    return found


def logs(run: Path) -> str:
    known = record.read(run)  # not of one that was queued without submit.py
    return "\n".join(it.read_text() for it in known.rank_logs()) if known else ""


def merged(run: Path) -> str:
    (path,) = job(run).merged_logs()
    return path.read_text()


def restarts(run: Path) -> int:
    return run_folder.read_status(run)["restarts"]


# ---------------------------------------------------------------------------- what is done to a run


def control(*arguments: str, check: bool = True) -> None:
    subprocess.run(["scontrol", *arguments], check=check, timeout=60)


def processes(run: Path, what: str = "") -> list[int]:
    """Processes whose command line names the run."""
    found = subprocess.run(["pgrep", "-f", f"{what}.*{run}"], capture_output=True, text=True)
    return [int(it) for it in found.stdout.split()]


def ranks(run: Path) -> dict[int, int]:
    """Processes by rank."""
    found = {}
    for process in processes(run, "submitit.core._submit"):
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{process}/environ").read_text().split("\0")
            if rank := [it[13:] for it in variables if it.startswith("SLURM_PROCID=")]:
                found[int(rank[0])] = process
    return found


@contextlib.contextmanager
def paused(run: Path) -> Iterator[None]:
    """Stop the run's ranks for the duration of the context, or until SLURM wakes them."""
    held = list(ranks(run).values())
    try:
        for process in held:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def alter(run: Path, file: str, old: str, new: str) -> None:
    """Edit the copy of the code that a job runs."""
    path = run / "jobs" / "001" / "code" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} has no {old!r} any more"
    path.write_text(text.replace(old, new))
