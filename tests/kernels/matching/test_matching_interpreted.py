"""Runs its program in a process of its own: kernels are interpreted always or never."""

from __future__ import annotations

from pathlib import Path

import helpers_interpreter


def test_the_kernels_under_the_interpreter():
    helpers_interpreter.run(Path(__file__).with_name("matching_interpreted.py"))
