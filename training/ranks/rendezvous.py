"""Rank, world size and rendezvous address of this process, as set by torchrun or SLURM."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from patchmill.loaders.common import ranks
from patchmill.loaders.common.errors import MillError

PORTS = range(20_000, 60_000)  # one is chosen for each SLURM job


class RankInfo(NamedTuple):
    rank: int
    size: int
    local_rank: int  # on its own machine
    host: str  # of rank 0
    port: int


def find(environ: Mapping[str, str] = os.environ) -> RankInfo | None:
    """Read the launcher's environment variables; None for a single process."""
    launched = ranks.launched(environ)
    if launched is None:
        return None
    complete = _from_torchrun if launched.origin == "torchrun" else _from_slurm
    return complete(launched.rank, launched.size, environ)


def _from_torchrun(rank: int, size: int, environ: Mapping[str, str]) -> RankInfo:
    return RankInfo(
        rank,
        size,
        ranks.number(environ, "LOCAL_RANK"),
        ranks.text(environ, "MASTER_ADDR"),
        ranks.number(environ, "MASTER_PORT"),
    )


def _from_slurm(rank: int, size: int, environ: Mapping[str, str]) -> RankInfo:
    job, step = (ranks.number(environ, name) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return RankInfo(
        rank,
        size,
        ranks.number(environ, "SLURM_LOCALID"),
        environ.get("MASTER_ADDR") or _first_host(ranks.text(environ, "SLURM_JOB_NODELIST")),
        ranks.number(environ, "MASTER_PORT", PORTS[(job + 101 * step) % len(PORTS)]),
    )


def _first_host(nodes: str) -> str:
    """First host of a node list such as gpu[07-10,12]."""
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise MillError(
            f"cannot determine the first host of SLURM_JOB_NODELIST={nodes} ({error}): "
            "set MASTER_ADDR=HOST"
        ) from None
