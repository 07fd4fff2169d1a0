"""Rank and world size of this process, from torch.distributed, torchrun or SLURM."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief


class Rank(NamedTuple):
    """One process of several that share the samples."""

    rank: int
    size: int
    origin: str = ""  # of these numbers; empty for a single process

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size}"

    @property
    def explained(self) -> str:
        return f"{self} by {self.origin}" if self.origin else str(self)


SINGLE = Rank(0, 1)
GIVEN = "the arguments"
_DIGITS = 19  # numbers with fewer digits fit into 64 bits


def choose(rank: int | None, world_size: int | None) -> Rank:
    """The given rank and world size, or the process's own if none are given.

    Raises a MillError if they contradict the process's own. Fewer ranks than processes are no
    contradiction: the ranks of a model-parallel group read the same samples, and with a world size
    of one every process reads all of them.
    """
    own = current()
    if rank is None and world_size is None:
        return own
    given = Rank(
        own.rank if rank is None else rank, own.size if world_size is None else world_size, GIVEN
    )
    if None in (rank, world_size) and given[:2] != own[:2]:
        raise MillError(
            f"{_names(rank, world_size)} does not fit this process, which is {own.explained}: "
            "give rank and world_size, or neither"
        )
    same_size = given.size == own.size
    if own.size > 1 and (given.size > own.size or (same_size and given.rank != own.rank)):
        raise MillError(
            f"{_names(rank, world_size)} contradicts this process, which is {own.explained}: "
            "give neither"
        )
    return given


def check(rank: Rank) -> None:
    """Raise a MillError if a rank that was detected is no longer the process's own."""
    own = current()
    if rank.origin != GIVEN and own.size > 1 and own[:2] != rank[:2]:
        raise MillError(
            f"the loader was built for {rank}, but this process is {own.explained}: build it "
            "after the process group has started, or give it rank and world_size"
        )


def current() -> Rank:
    """This process's rank: torch.distributed's if it is initialised, else the launcher's."""
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        rank, size = distributed.get_rank(), distributed.get_world_size()
        return Rank(rank, size, "torch.distributed") if size > 1 else SINGLE
    return launched() or SINGLE


def launched(environ: Mapping[str, str] = os.environ) -> Rank | None:
    """The rank that torchrun or SLURM assigned to this process; None for a single process."""
    if "RANK" in environ and number(environ, "WORLD_SIZE", 1) > 1:
        return _rank(environ, "RANK", "WORLD_SIZE", "torchrun")
    # A batch script has these, too, except the step id: only processes started by srun are ranks.
    if "SLURM_STEP_ID" in environ and number(environ, "SLURM_NTASKS", 1) > 1:
        return _rank(environ, "SLURM_PROCID", "SLURM_NTASKS", "SLURM")
    return None


def _rank(environ: Mapping[str, str], rank_name: str, size_name: str, origin: str) -> Rank:
    rank, size = number(environ, rank_name), number(environ, size_name)
    if rank >= size:
        raise MillError(
            f"{rank_name}={rank} in the environment must be below {size_name}={size}: start the "
            "processes with torchrun or srun, or unset both"
        )
    return Rank(rank, size, origin)


def local_size(environ: Mapping[str, str] = os.environ) -> int:
    """Number of ranks on this machine, or the best guess; 1 if SLURM divides the cores."""
    if environ.get("LOCAL_WORLD_SIZE"):  # set by torchrun
        return max(number(environ, "LOCAL_WORLD_SIZE"), 1)
    own = current()
    if own.size == 1 or own.origin == "SLURM" or "SLURM_STEP_ID" in environ:
        return 1  # srun binds each task to its own cores
    import torch

    return min(own.size, torch.cuda.device_count() or own.size)


def gpu_index(local_rank: int, gpus: int, environ: Mapping[str, str] = os.environ) -> int:
    """Index of a rank's GPU among the `gpus` that torch sees: its local rank.

    With --gpus-per-task=1, SLURM shows each task only its own GPU, whose index is 0. torchrun shows
    all of its ranks the same GPUs.
    """
    chosen = environ.get("CUDA_VISIBLE_DEVICES", "")
    shared = not chosen or "," in chosen or "TORCHELASTIC_RUN_ID" in environ
    return 0 if gpus == 1 and not shared else local_rank


def text(environ: Mapping[str, str], name: str) -> str:
    """An environment variable that every rank has; MillError if it is missing."""
    if value := environ.get(name):
        return value
    raise MillError(
        f"{name} is missing from the environment of a run of several processes: "
        "start them with torchrun or srun"
    )


def number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A non-negative whole number in the environment; MillError for anything else."""
    if default is not None and not environ.get(name):
        return default
    value = text(environ, name)
    if not (value.isascii() and value.isdigit() and len(value) < _DIGITS):
        raise MillError(
            f"{name}={brief(value)[1:-1]} in the environment is not a whole number: "
            "correct it, or unset it"
        )
    return int(value)


def _names(rank: int | None, world_size: int | None) -> str:
    values = {"rank": rank, "world_size": world_size}
    return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)
