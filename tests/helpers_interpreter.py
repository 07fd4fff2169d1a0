"""For modules whose kernels are interpreted on CPU tensors; they are skipped where that cannot be.

It is on for a whole process or off, so `run` starts one.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def run(program: Path) -> None:
    """All tests of a file, in a process whose kernels are interpreted."""
    pytest.importorskip("triton")
    two = ["-n", "2"] if importlib.util.find_spec("xdist") else []
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *two, str(program)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(run.stdout)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]


def missing() -> str | None:
    """Why kernels would not be interpreted here, for the modules that need that."""
    if not INTERPRETED:
        return "needs TRITON_INTERPRET=1 from the start"
    import torch
    import triton
    import triton.language as tl

    @triton.jit
    def counts_to(number):
        for _ in range(0, tl.load(number)):
            pass

    try:
        counts_to[(1,)](torch.ones(1, dtype=torch.int32))
    except Exception as error:
        return f"Triton's interpreter and NumPy do not agree: {error}"
    return None
