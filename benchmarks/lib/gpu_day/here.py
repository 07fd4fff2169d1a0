"""This machine's resources for the steps: cores, modules, programs, and a GPU usable by torch."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from patchmill.benchmarks.lib.gpu_day.step import Step
from patchmill.loaders.common.threads import available_cores

BASE = ("torch", "triton", "numpy", "numba")
SECONDS = 90  # for importing torch from a cold disk
PROBE = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
PACKAGES = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "hydra": "hydra-core",
    "nvidia.dali": "nvidia-dali-cuda130",
}


def has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # of its parent package, or of a stub
        return False


@dataclass(frozen=True)
class Here:
    """This machine; tests construct others."""

    gpu: str  # its name; "" if torch cannot use any
    cores: int = field(default_factory=available_cores)
    has_module: Callable[[str], bool] = has_module
    has_program: Callable[[str], bool] = field(default=lambda name: bool(shutil.which(name)))

    def lacks(self, step: Step, rehearse: bool = False) -> str:
        """Short reason why the step cannot run here; "" if it can."""
        if step.gpu and not self.gpu and not rehearse:
            return "torch finds no CUDA device"
        if rehearse and step.small is None:
            return "has no form for a CPU"
        tests = ("pytest",) if step.writes == "tests" else ()
        missing = [name for name in (*BASE, *tests, *step.needs) if not self.has_module(name)]
        if missing and step.name != "facts":
            names = dict.fromkeys(PACKAGES.get(name, name) for name in missing)
            return f"not installed: {', '.join(names)}"
        if step.under and not self.has_program(step.under[0]):
            return f"{step.under[0]} is not on PATH"
        return ""


def look() -> Here:
    """Ask torch in a separate process: this one must not allocate GPU memory."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return Here("")
    return Here(done.stdout.strip())
