"""Runs pipelines_interpreted.py in a process of its own, in which all kernels are interpreted."""

from __future__ import annotations

from pathlib import Path

import helpers_interpreter


def test_the_pipelines_of_a_gpu_under_the_interpreter() -> None:
    helpers_interpreter.run(Path(__file__).with_name("pipelines_interpreted.py"))
