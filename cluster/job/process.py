"""What every process of a job does: train, and see to it that the job goes on if it must stop."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from patchmill.cluster.job import restarts
from patchmill.cluster.slurm import commands
from patchmill.loaders.common.errors import MillError
from patchmill.training import engine
from patchmill.training.config import compose
from patchmill.training.ranks import rendezvous, signals
from patchmill.training.runtime import display

CACHES = "PATCHMILL_JOB_CACHE"  # the folder on the node's own disk where the job compiles into


@dataclass(frozen=True)
class Training:
    """submitit pickles this, and calls it in each process.

    Its own handler saves and requeues inside a signal handler, where ranks cannot agree on
    anything, and its children inherit it: ours, which only notes that there was a signal, takes
    its place first of all. For the seconds before, signals are ignored (script.python).
    """

    config: Mapping[str, Any]
    requeue: bool
    folder: str  # which the user's relative paths start from
    commit: str  # of the code

    def __call__(self) -> None:
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        # Python looks for modules where it starts: the script begins in the copy of the code.
        os.chdir(self.folder)
        with signals.Signals():
            os.environ.update(_local_place(os.environ))
            try:
                self._introduce()
                config = compose.from_plain(self.config)
                restarts.begin(Path(config.out) / config.name)
                engine.train(config)
            except signals.Stopped as stopped:
                self._leave(stopped)
            except MillError as error:
                print(f"error: {error} (on {node()})", file=sys.stderr)
                sys.exit(1)
            _tidy()

    def _introduce(self) -> None:
        """So that a node or a GPU that ails can be told from the logs."""
        place = rendezvous.place()
        rank, size, local = place[:3] if place else (0, 1, 0)
        display.speak(rank == 0)
        code = f"patchmill {self.commit} in {Path(__file__).parents[1]}"
        print(f"rank {rank} of {size} on {node()}, {_device(local)}: {code}", flush=True)

    def _leave(self, stopped: signals.Stopped) -> None:
        place = rendezvous.place()
        if place and place.rank:
            signals.leave(0)  # any other code would end rank 0 before it has spoken for all
        job = os.environ.get("SLURM_JOB_ID")
        if job and self.requeue and commands.is_due(stopped.signal, commands.shown(job)):
            refused = commands.requeue(job)
            print(f"SLURM does not requeue job {job}: {refused}" if refused else "queued again")
        signals.leave()


def node() -> str:
    """As SLURM calls it, which is what its commands take."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _device(local: int) -> str:
    if local >= torch.cuda.device_count():
        return "no GPU"
    try:
        found = torch.cuda.get_device_properties(local)
    except RuntimeError as error:
        return f"GPU {local}, which does not work ({str(error).splitlines()[0]})"
    return f"GPU {local} ({found.name}, {found.uuid})"


def _local_place(environ: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would say, of the processes that submitit started on this machine."""
    size = int(environ.get("SUBMITIT_LOCAL_NTASKS", 1))
    if environ.get("SUBMITIT_EXECUTOR") != "local" or size == 1:
        return {}
    rank, job = environ["SUBMITIT_LOCAL_GLOBALID"], int(environ["SUBMITIT_LOCAL_JOB_ID"])
    return {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": environ.get(
            "MASTER_PORT", str(rendezvous.PORTS[job % len(rendezvous.PORTS)])
        ),
    }


def _tidy() -> None:
    """What was compiled for the job, at its end."""
    if (folder := os.environ.get(CACHES)) and os.environ.get("SLURM_LOCALID", "0") == "0":
        shutil.rmtree(folder, ignore_errors=True)
