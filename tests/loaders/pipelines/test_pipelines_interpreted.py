"""Runs pipelines_interpreted.py in a process of its own, in which all kernels are interpreted."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_the_pipelines_of_a_gpu_under_the_interpreter() -> None:
    cases = Path(__file__).with_name("pipelines_interpreted.py")
    two = ["-n", "2"] if importlib.util.find_spec("xdist") else []
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *two, str(cases)],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(run.stdout)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
