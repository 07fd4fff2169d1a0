"""SLURM: its partitions, and the job that this process runs in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

from patchmill.command.doctor.finding import Finding

SECONDS = 15


def slurm() -> Iterator[Finding]:
    if not shutil.which("sinfo"):
        yield Finding(
            "SLURM", "absent", "no sinfo on PATH", "patchmill submit trains on this machine"
        )
        return
    command = ["sinfo", "--noheader", "--format=%P|%a|%D|%c|%G"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        yield Finding(
            "SLURM", "warning", f"sinfo gave no answer within {SECONDS} s", "jobs cannot be queued"
        )
        return
    lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 4]
    if done.returncode or not lines:
        problem = (done.stderr.strip().splitlines() or ["sinfo lists no partition"])[0]
        yield Finding(
            "SLURM", "warning", problem, "jobs cannot be queued", "sinfo must work on this machine"
        )
        return
    for partition, state, nodes, cores, gpus in lines:
        with_gpus = "" if gpus in ("(null)", "") else f", {gpus}"
        text = f"{partition.rstrip('*')}: {nodes} nodes of {cores} cores{with_gpus}, {state}"
        yield Finding("SLURM", "ok", text)


def job() -> Iterator[Finding]:
    if number := os.environ.get("SLURM_JOB_ID"):
        nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
        yield Finding("job", "ok", f"this is inside job {number}, of {nodes} nodes")


PROBES = {"SLURM": slurm, "job": job}
