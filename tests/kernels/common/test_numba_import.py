"""Numba can be imported in programs that replace `print`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_dino_print import UTILS

ROOT = Path(__file__).resolve().parents[3]

USES = """
shown = builtins.print
from patchmill.kernels.common.jit import jit
assert builtins.print is shown and callable(jit)
print("printed by", shown.__module__)
"""


@pytest.mark.parametrize(
    ("replaces", "module"),
    [
        ("import utils; utils.setup_for_distributed(True)", "utils"),
        ("builtins.print = functools.partial(print, flush=True)", "functools"),
        ("pass", "builtins"),
    ],
)
def test_after_print_was_replaced(tmp_path: Path, replaces: str, module: str):
    (tmp_path / "utils.py").write_text(UTILS)
    code = f"import builtins, functools\n{replaces}\n{USES}"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"printed by {module}\n"), done.stderr
