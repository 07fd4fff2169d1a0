"""Start of commands: scripts run by path, torch's CPU threads, and the command as typed."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn


def run_script(main: Callable[[], None], file: str) -> NoReturn:
    """Run the `main` of the script `file` as a command.

    Python puts a script's folder first on the import path. It is removed, as modules in it, such as
    evaluate.py, would shadow packages of the same name.
    """
    from patchmill.loaders.common.errors import run_command

    folder = Path(file).parent.resolve()
    if sys.path and Path(sys.path[0]).resolve() == folder:
        del sys.path[0]
    run_command(main)


def idle_threads_sleep() -> None:
    """Make torch's CPU threads sleep while they wait for each other; call before importing torch.

    By default they spin and occupy cores that the loader's threads need: on two busy cores a
    training step of 0.2 s took up to 9 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def command_line(argv: Sequence[str]) -> str:
    """The command in `sys.argv`, as a user would type it again."""
    script = Path(argv[0])
    if script.name == "patchmill" or script.parts[-2:] == ("patchmill", "__main__.py"):
        return shlex.join(["patchmill", *argv[1:]])
    return shlex.join(["python", *argv])
