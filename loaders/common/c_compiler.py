"""The C compiler that Triton uses to build kernel launchers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SECONDS = 30
MISSING = "there is neither gcc nor clang on PATH, and CC is not set"


def compiler() -> str | None:
    """The C compiler that Triton uses: CC, else gcc or clang."""
    chosen = os.environ.get("CC")
    return chosen or next((name for name in ("gcc", "clang") if shutil.which(name)), None)


def compiler_problem() -> str | None:
    """Compile a few lines as Triton does; return the problem, or None if it works."""
    if not (name := compiler()):
        return MISSING
    include = sysconfig.get_paths()["include"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <Python.h>\nint probe(void) { return PY_MAJOR_VERSION; }\n")
        command = [
            *name.split(),
            "-shared",
            "-fPIC",
            f"-I{include}",
            str(source),
            "-o",
            f"{source}.so",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{name} does not run ({type(error).__name__}: {error})"
    if done.returncode == 0:
        return None
    if "Python.h" in done.stderr:
        return f"{name} finds no Python.h in {include}"
    return f"{name} fails: {(done.stderr.strip().splitlines() or ['no error message'])[0]}"


def compiler_remedy() -> str:
    """The command that installs a compiler and Python's headers."""
    if shutil.which("apt-get"):
        return f"apt-get install gcc python{sys.version_info.major}.{sys.version_info.minor}-dev"
    for tool in ("dnf", "yum"):
        if shutil.which(tool):
            return f"{tool} install gcc python3-devel"
    return "conda install -c conda-forge gcc, or ask who runs the machine"
