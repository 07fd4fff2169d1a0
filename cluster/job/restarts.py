"""How far a run had come when each life of a job began: one that never comes further is ended.

SLURM begins a job again for as long as nodes fail or matter more to others, and a job that makes
its nodes fail would never end.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.files import write_atomic
from patchmill.training.ranks import rendezvous
from patchmill.training.runtime import checkpoint

FILE = "lives.json"
MOST = 5  # lives in a row that begin at one step


def begin(run: Path) -> None:
    """Rank 0 notes a life; a MillError if too many have come to nothing."""
    place, job = rendezvous.place(), os.environ.get("SLURM_JOB_ID")
    if not job or (place and place.rank):
        return
    kept = checkpoint.kept(run)
    at = kept[-1].name if kept else "the beginning"
    before = _read(run / FILE)
    lives = [*before, {"job": job, "at": at, "nodes": os.environ.get("SLURM_JOB_NODELIST")}]
    same = [life for life in before[-MOST:] if (life["job"], life["at"]) == (job, at)]
    if len(same) == MOST:
        nodes = ", ".join(sorted({str(life["nodes"]) for life in same}))
        raise MillError(
            f"job {job} began {MOST} times from {at} and came to no checkpoint after it, on "
            f"{nodes}: look into {run}/jobs for what ended it, then submit it again"
        )
    with contextlib.suppress(OSError):  # a full disk is for the checkpoint to report
        write_atomic(run / FILE, json.dumps(lives[-MOST:], indent=1) + "\n", durable=True)


def _read(path: Path) -> list[dict[str, str]]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []
