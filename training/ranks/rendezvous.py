"""Rank, world size and rendezvous address of this process, as set by torchrun or SLURM."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from patchmill.loaders.common.errors import MillError

PORTS = range(20_000, 60_000)  # one of them for each SLURM job


class RankInfo(NamedTuple):
    rank: int
    size: int
    local_rank: int  # on its own machine
    host: str  # of rank 0
    port: int


def find(environ: Mapping[str, str] = os.environ) -> RankInfo | None:
    """Read the launcher's environment; None for a single process."""
    if int(environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in environ:
        return _from_torchrun(environ)
    # A batch script has these too, but for a step's id: only what srun starts is a rank.
    if int(environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_ID" in environ:
        return _from_slurm(environ)
    return None


def _from_torchrun(environ: Mapping[str, str]) -> RankInfo:
    return RankInfo(
        _number(environ, "RANK"),
        _number(environ, "WORLD_SIZE"),
        _number(environ, "LOCAL_RANK"),
        _text(environ, "MASTER_ADDR"),
        _number(environ, "MASTER_PORT"),
    )


def _from_slurm(environ: Mapping[str, str]) -> RankInfo:
    job, step = _number(environ, "SLURM_JOB_ID"), _number(environ, "SLURM_STEP_ID")
    port = environ.get("MASTER_PORT", str(PORTS[(job + 101 * step) % len(PORTS)]))
    return RankInfo(
        _number(environ, "SLURM_PROCID"),
        _number(environ, "SLURM_NTASKS"),
        _number(environ, "SLURM_LOCALID"),
        environ.get("MASTER_ADDR") or _first_host(_text(environ, "SLURM_JOB_NODELIST")),
        int(port),
    )


def _first_host(nodes: str) -> str:
    """First host of a node list such as gpu[07-10,12]."""
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise MillError(
            f"cannot tell the first host of SLURM_JOB_NODELIST={nodes} ({error}): "
            "name it, as MASTER_ADDR=HOST"
        ) from None


def _number(environ: Mapping[str, str], name: str) -> int:
    text = _text(environ, name)
    try:
        return int(text)
    except ValueError:
        raise MillError(f"{name}={text} in the environment is not a number") from None


def _text(environ: Mapping[str, str], name: str) -> str:
    if text := environ.get(name):
        return text
    raise MillError(
        f"{name} is missing from the environment of a run of several processes: "
        "start them with torchrun or srun"
    )
