"""Runs its two programs in processes of their own: kernels are interpreted always or never."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


@pytest.mark.parametrize("program", ["gpu_interpreted.py", "gpu_paste_interpreted.py"])
def test_the_kernels_under_the_interpreter(program: str):
    cases = Path(__file__).with_name(program)
    root = Path(__file__).parents[3]
    two = ["-n", "2"] if importlib.util.find_spec("xdist") else []
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *two, str(cases)],
        cwd=root,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(run.stdout)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
