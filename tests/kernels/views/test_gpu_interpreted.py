"""Runs its two programs in processes of their own: kernels are interpreted always or never."""

from __future__ import annotations

from pathlib import Path

import helpers_interpreter
import pytest


@pytest.mark.parametrize("program", ["gpu_interpreted.py", "gpu_paste_interpreted.py"])
def test_the_kernels_under_the_interpreter(program: str):
    helpers_interpreter.run(Path(__file__).with_name(program))
