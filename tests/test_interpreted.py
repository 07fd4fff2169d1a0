"""Run every `*_interpreted.py` under Triton's interpreter, in a separate process tree.

The interpreter is on or off for a whole process. All files share one: each start costs seconds, and
a second worker as many again, which a machine with few cores can use better.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FEW_CORES = 4


def test_kernels_under_the_interpreter(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("triton")
    files = sorted(HERE.rglob("*_interpreted.py"))
    programs = [file for file in files if not file.name.startswith(("helpers_", "test_"))]
    many = (os.cpu_count() or 1) > FEW_CORES and importlib.util.find_spec("xdist")
    workers = ["-n", "2"] if many else []
    marked = ["-m", request.config.option.markexpr]  # such as "not slow"
    argv = ["-q", "-p", "no:cacheprovider", *marked, *workers, *programs]
    session = subprocess.run(
        [sys.executable, "-m", "pytest", *argv],
        cwd=HERE.parent,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    if session.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(session.stdout)
    assert session.returncode == 0, session.stdout[-20_000:] + session.stderr[-2000:]
