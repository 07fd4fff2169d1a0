"""The task that each process of a job runs: train, and requeue the job if it must stop early."""

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
from patchmill.kernels import compiled_code
from patchmill.loaders.common import ranks
from patchmill.loaders.common.errors import MillError
from patchmill.training import engine
from patchmill.training.config import compose
from patchmill.training.config.settings import Config
from patchmill.training.ranks import rendezvous, signals
from patchmill.training.runtime import display

CACHES = "PATCHMILL_JOB_CACHE"  # folder for compiled code, on the node's own disk


@dataclass(frozen=True)
class TrainingTask:
    """Callable that submitit pickles and calls in each process.

    submitit saves and requeues inside its signal handler, where ranks cannot agree on a step, and
    child processes inherit the handler. Ours only records the signal, and replaces it before
    anything else; until then signals are ignored (script.python_command).
    """

    config: Mapping[str, Any]
    requeue: bool
    folder: str  # working directory of the submission: relative paths start there
    commit: str  # of the code
    stage: str | None = None  # folder on the node's own disk, for a copy of the training data

    def __call__(self) -> None:
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        # The script starts in the code snapshot, so that Python imports its modules from there.
        os.chdir(self.folder)
        with signals.Signals():
            os.environ.update(_torchrun_variables(os.environ))
            _make_caches()
            try:
                self._print_start()
                config = compose.from_plain(self.config)
                if self.stage:
                    _stage(config, self.stage)
                restarts.record_start(Path(config.out) / config.name)
                engine.train(config)
            except signals.Stopped as stopped:
                self._leave(stopped)
            except MillError as error:
                print(f"error: {error} (on {node()})", file=sys.stderr)
                sys.exit(1)
            _remove_caches()

    def _print_start(self) -> None:
        """Print rank, node, GPU and code, so that logs show which node or GPU is faulty."""
        rank_info = rendezvous.find()
        rank, size, local = rank_info[:3] if rank_info else (0, 1, 0)
        display.configure_logging(rank == 0)
        code = f"patchmill {self.commit} in {Path(__file__).parents[1]}"
        print(f"rank {rank} of {size} on {node()}, {_device(local)}: {code}", flush=True)

    def _leave(self, stopped: signals.Stopped) -> None:
        rank_info = rendezvous.find()
        if rank_info and rank_info.rank:
            signals.exit_now(0)  # srun would kill rank 0 on any other code before it has requeued
        job = os.environ.get("SLURM_JOB_ID")
        if job and self.requeue:
            commands.requeue_if_due(job, stopped.signal)
        signals.exit_now()


def _stage(config: Config, folder: str) -> None:
    """Read the training data from this node's disk; their mask file stays where it is."""
    from patchmill.cluster.job import stage
    from patchmill.loaders.copypaste import masks
    from patchmill.loaders.recipe_load import load_recipe
    from patchmill.loaders.sources import open_source

    data = config.data
    if data.masks is None and any(group.paste for group in load_recipe(config.method.views).views):
        path = masks.find_mask_file(open_source(data.train))
        data.masks = str(path) if path else None
    rank_info = rendezvous.find()
    data.train = stage.stage(data.train, folder, rank_info is None or rank_info.local_rank == 0)


def node() -> str:
    """The node's name in SLURM, as its commands accept it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _device(local: int) -> str:
    local = ranks.gpu_index(local, torch.cuda.device_count())
    if local >= torch.cuda.device_count():
        return "no GPU"
    try:
        gpu = torch.cuda.get_device_properties(local)
    except RuntimeError as error:
        return f"GPU {local}, which does not work ({str(error).splitlines()[0]})"
    return f"GPU {local} ({gpu.name}, {gpu.uuid})"


def _torchrun_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables for processes that submitit started on this machine."""
    size = ranks.number(environ, "SUBMITIT_LOCAL_NTASKS", 1)
    if environ.get("SUBMITIT_EXECUTOR") != "local" or size == 1:
        return {}
    rank, job = environ["SUBMITIT_LOCAL_GLOBALID"], ranks.number(environ, "SUBMITIT_LOCAL_JOB_ID")
    return {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": environ.get(
            "MASTER_PORT", str(rendezvous.PORTS[job % len(rendezvous.PORTS)])
        ),
    }


def _make_caches() -> None:
    """Create the job's folder for compiled code on the node's disk.

    Another user may create it first: its name can be guessed, and the code in it is executed.
    """
    if folder := os.environ.get(CACHES):
        before = folder
        compiled_code.keep_private(CACHES, Path(folder), make=True)
        for variable in (compiled_code.TRITON, compiled_code.INDUCTOR):
            inside = os.environ.get(variable, "")
            if inside.startswith(f"{before}/"):
                os.environ[variable] = os.environ[CACHES] + inside[len(before) :]


def _remove_caches() -> None:
    """Remove the job's compiled code from the node's disk."""
    if (folder := os.environ.get(CACHES)) and os.environ.get("SLURM_LOCALID", "0") == "0":
        shutil.rmtree(folder, ignore_errors=True)
