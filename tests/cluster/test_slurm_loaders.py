"""Ranks of a real SLURM see different images without being told which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_examples import EXAMPLES, ROOT, seen_by_ranks

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("cluster")]


def test_two_ranks_of_srun(tmp_path: Path) -> None:
    srun = ["srun", "--nodes", "2", "--ntasks", "2", "--cpus-per-task", "1", "--time", "5"]
    done = subprocess.run(
        [*srun, sys.executable, str(EXAMPLES / "plain_ddp.py"), "scenes:32"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    seen = seen_by_ranks(done.stdout)
    assert sorted(seen) == [0, 1] and sorted(seen[0] + seen[1]) == list(range(32))
