"""Record each start of a job and the checkpoint it starts from; end a job that makes no progress.

SLURM restarts a job each time a node fails or a job of higher priority preempts it, so a job that
crashes its nodes would restart forever.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import write_atomic
from patchmill.training.ranks import rendezvous
from patchmill.training.runtime import checkpoint

FILE = "lives.json"
MAX_STARTS = 5  # in a row, from one checkpoint


def record_start(run: Path) -> None:
    """Record this start on rank 0 of a SLURM job; MillError after too many without progress."""
    rank_info, job = rendezvous.find(), os.environ.get("SLURM_JOB_ID")
    if not job or (rank_info and rank_info.rank):
        return
    kept = checkpoint.find_all(run)
    origin = kept[-1].name if kept else "the beginning"
    before = _read(run / FILE)
    start = {"job": job, "at": origin, "nodes": os.environ.get("SLURM_JOB_NODELIST")}
    in_vain = [s for s in before[-MAX_STARTS:] if (s["job"], s["at"]) == (job, origin)]
    if len(in_vain) == MAX_STARTS:
        nodes = ", ".join(sorted({str(start["nodes"]) for start in in_vain}))
        raise MillError(
            f"job {job} started {MAX_STARTS} times from {origin} and never reached the next "
            f"checkpoint, on {nodes}: see {run}/jobs for the cause, then submit it again"
        )
    starts = [*before, start][-MAX_STARTS:]
    with contextlib.suppress(OSError):  # a full disk is reported by the checkpoint
        write_atomic(run / FILE, json.dumps(starts, indent=1) + "\n", durable=True)


def _read(path: Path) -> list[dict[str, str]]:
    try:
        starts = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return starts if isinstance(starts, list) else []
