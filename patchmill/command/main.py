"""The command `patchmill COMMAND ...`: overview, help and dispatch to each command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import patchmill
from patchmill.command.table import COMMANDS
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.script import idle_threads_sleep

HELP = ("--help", "-h")
CARRIED = {"hydra-core": ("omegaconf",)}  # modules of packages installed along with a required one


def main() -> NoReturn:
    """Entry point of the installed command, and of `python -m patchmill`."""
    run_command(lambda: run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> None:
    word, *rest = arguments or HELP
    if word == "help" and rest:
        word, *rest = *rest, "--help"
    if word in (*HELP, "help"):
        print(overview())
    elif word == "--version":
        print(f"patchmill {patchmill.__version__}")
    elif word == "__complete":
        from patchmill.command.completion.words import main as complete

        complete(rest)
    elif word in COMMANDS:
        _run(word, rest)
    else:
        raise MillError(_unknown(word))


def overview() -> str:
    lines = [f"  {word:<12} {command.title}" for word, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: patchmill COMMAND ...",
            "",
            *lines,
            "",
            "patchmill COMMAND --help describes a command; --version prints the version.",
        ]
    )


def _run(word: str, rest: Sequence[str]) -> None:
    command = COMMANDS[word]
    if command.idle_threads_sleep:
        idle_threads_sleep()  # before anything imports torch
    try:
        command.load()([*command.arguments, *rest])
    except ModuleNotFoundError as error:
        _explain_missing(error.name or "")
        raise


def _explain_missing(module: str) -> None:
    """Raise a MillError if `module` belongs to a package that patchmill requires."""
    from patchmill.command.doctor.packages import module_of, parse, requirements

    for requirement in requirements()[""]:
        package, _ = parse(requirement)
        if module.partition(".")[0] in (module_of(package), *CARRIED.get(package, ())):
            raise MillError(
                f"{package} is not installed, and patchmill needs it: patchmill doctor says what "
                "else is missing, and names the commands that add it"
            ) from None


def _unknown(word: str) -> str:
    from patchmill.loaders.common.calls import nearest

    if word.startswith("-"):
        return f"there is no option {word}: a command comes first, and patchmill lists them"
    return f"there is no command {word!r}{nearest(word, COMMANDS)}"
