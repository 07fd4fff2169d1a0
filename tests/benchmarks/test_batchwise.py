"""Runs batchwise_interpreted.py in its own process: kernels are interpreted always or never."""

from __future__ import annotations

from pathlib import Path

import helpers_interpreter


def test_what_is_measured_on_a_gpu() -> None:
    helpers_interpreter.run(Path(__file__).with_name("batchwise_interpreted.py"))
