"""Runs batchwise_interpreted.py in its own process: kernels are interpreted always or never."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_what_is_measured_on_a_gpu():
    cases = Path(__file__).with_name("batchwise_interpreted.py")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(run.stdout)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
