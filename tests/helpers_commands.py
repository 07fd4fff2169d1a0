"""Check command lines in documents without running them: only their arguments are parsed."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import setuptools.config.setupcfg as setupcfg
from helpers_documents import ROOT

# User folders that commands name: the test gives each a train and a val folder.
PLACEHOLDERS = ("DIR", "DATA", "SRC", "photos", "shards")


class Parsed(Exception):
    """Raised instead of running a command, once it has parsed its arguments."""


def check(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if the command does not exist, or does not accept its arguments."""
    if re.search(r"\[--|\.\.\.|\b[A-Z]+\|", command):  # a synopsis
        return
    _, argv = split_variables(shlex.split(re.sub(r"/data/\w+", "DIR", command)))
    program = argv[0].rpartition("/")[2]
    module, arguments = module_of(argv)
    if program == "make":
        assert all(re.search(rf"^{word}:", makefile(), re.M) for word in argv[1:]), command
    elif program == "pip":
        check_extras(command)
    elif module:
        check_module(module, arguments, monkeypatch)


def split_variables(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split `NAME=value` assignments before a command from the command."""
    variables = {}
    while argv and re.match(r"[A-Z_]+=", argv[0]):
        name, _, value = argv[0].partition("=")
        variables[name] = value
        argv = argv[1:]
    return variables, argv


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


def check_extras(command: str) -> None:
    extras = setupcfg.read_configuration(ROOT / "setup.cfg")["options"]["extras_require"]
    for names in re.findall(r"(?:\.|patchmill)\[([\w,]+)\]", command):
        assert set(names.split(",")) <= set(extras), command


def module_of(argv: list[str]) -> tuple[str, list[str]]:
    """The module of this project that a command runs, and its arguments; empty for others."""
    program = argv[0].rpartition("/")[2]
    if program == "patchmill":
        return of_patchmill(argv[1:])
    if program == "python" and argv[1] == "-m":
        module = argv[2]
        path = ROOT.joinpath(*module.split(".")[1:])
        if module.startswith("patchmill") and path.is_dir():
            module += ".command" if (path / "command.py").is_file() else ".__main__"
        return (module if module.startswith("patchmill") else ""), argv[3:]
    scripts = [i for i, word in enumerate(argv) if word.endswith(".py")]
    if program in ("python", "torchrun") and scripts and "/" in argv[scripts[0]]:
        path = argv[scripts[0]]
        assert (ROOT / path).is_file(), path
        if path.startswith(("examples/", "tests/")):  # those have their own tests
            return "", []
        module = path.removesuffix(".py").replace("/", ".")
        return f"patchmill.{module}", argv[scripts[0] + 1 :]
    return "", []


def of_patchmill(argv: list[str]) -> tuple[str, list[str]]:
    """The module behind `patchmill COMMAND ...`, and its arguments."""
    import patchmill.command.bench as bench
    from patchmill.command.table import COMMANDS

    if not argv or argv[0].startswith("--") or argv[0] == "help":
        return "", []
    word, rest = argv[0], argv[1:]
    assert word in COMMANDS, word
    if word == "bench":
        name = rest.pop(0) if rest and not rest[0].startswith("-") else bench.DEFAULT
        assert name in bench.names(), name
        return bench.module(name), rest
    command = COMMANDS[word]
    return f"patchmill.{command.entry.partition(':')[0]}", [*command.arguments, *rest]


def run(module: str, argv: Sequence[str]) -> None:
    """Run one of our commands in this process."""
    try:
        importlib.import_module(module).main(list(argv))
    except SystemExit as ended:
        assert not ended.code, f"{module} {' '.join(argv)}"


def check_module(module: str, argv: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the module's main until it has parsed its arguments."""
    from patchmill.training.config import command_line, compose

    if module in ("patchmill.training.evaluate", "patchmill.training.export"):
        loaded: Any = importlib.import_module(module)
        is_evaluate = module.endswith("evaluate")
        loaded._command(command_line.split(argv) if is_evaluate else list(argv))
        return
    if module == "patchmill.training.run":
        if "--help" not in argv:
            compose.compose([word for word in argv if not word.startswith("--")])
        return
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, stop_after(name))
    monkeypatch.setattr(sys, "argv", [module, *argv])
    try:
        importlib.import_module(module).main(list(argv))
    except Parsed as parsed:
        if module == "patchmill.cluster.submit" and (
            argv := getattr(parsed.args[0], "overrides", [])
        ):
            compose.compose(argv)
    except SystemExit as ended:
        assert not ended.code, f"{module} {' '.join(argv)}"


def stop_after(name: str) -> Any:
    """A method of ArgumentParser that parses and then ends the command."""
    original = getattr(argparse.ArgumentParser, name)

    def parse(*arguments: Any, **options: Any) -> None:
        raise Parsed(original(*arguments, **options))

    return parse
