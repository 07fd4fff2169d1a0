"""Start of commands: scripts that are run by path, the threads of torch, and a command as typed."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn


def run_script(main: Callable[[], None], file: str) -> NoReturn:
    """Run the `main` of the script `file` as a command.

    Python puts a script's folder first on the import path. It is taken off again: modules in it,
    such as evaluate.py, would shadow other packages of the same name.
    """
    from patchmill.loaders.common.errors import run_command

    folder = Path(file).parent.resolve()
    if sys.path and Path(sys.path[0]).resolve() == folder:
        del sys.path[0]
    run_command(main)


def idle_threads_sleep() -> None:
    """Let torch's CPU threads sleep while they wait for each other; call before importing torch.

    By default they spin, and take the cores that the loader's threads need: on two busy cores a
    training step of 0.2 s took up to 9 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def command_line(argv: Sequence[str]) -> str:
    """The command that `argv` of `sys` belongs to, for people to repeat."""
    script = Path(argv[0])
    if script.name == "patchmill" or script.parts[-2:] == ("patchmill", "__main__.py"):
        return shlex.join(["patchmill", *argv[1:]])
    return shlex.join(["python", *argv])
