"""Options of commands and their values."""

from __future__ import annotations

import argparse
import ast
import importlib
from collections.abc import Callable, Iterable, Sequence

from patchmill.command.completion.runs import folders
from patchmill.command.completion.settings import bug_report, presets, training
from patchmill.command.completion.word import Word, plain
from patchmill.loaders.common.arguments import Parser

Choices = Callable[[Sequence[str], str], Iterable[Word]]

# Command -> module:function that makes its parser without importing torch.
PARSERS = {
    "report": "training.report.__main__:parser",
    "status": "cluster.status:parser",
    "watch": "training.watch.command:parser",
    "prepare": "loaders.prepare.parsers:parser",
    "masks": "loaders.prepare.parsers:masks_parser",
    "inspect": "loaders.prepare.parsers:inspect_parser",
    "cache": "loaders.decoded.command:parser",
    "preview": "loaders.preview.command:parser",
    "bug-report": "command.bug_report:parser",
    "doctor": "command.doctor.command:parser",
    "completion": "command.completion.command:parser",
}
WITH_SETTINGS = ("methods", "scaling", "scenes", "speedrun", "training")  # benchmarks


def of_command(command: str, before: Sequence[str], typed: str) -> list[Word]:
    if command not in PARSERS:
        return []
    return _of_parsers([_parser(command)], before, typed, POSITIONAL.get(command))


def of_submit(before: Sequence[str], typed: str) -> list[Word]:
    from patchmill.cluster import options

    if before and before[0] in options.PREPARE_COMMANDS:
        parsers = [options.preparation_parser(before[0]), _parser(before[0])]
        return _of_parsers(parsers, before[1:], typed)
    found = _of_parsers([options.parser()], before, typed, training)
    return [*found, *([] if before else plain(*options.PREPARE_COMMANDS))]


def of_bench(before: Sequence[str], typed: str) -> list[Word]:
    from patchmill.command.bench import DEFAULT, names, source, title

    if not before and not typed.startswith("-"):
        return [*(Word(name, title(name)) for name in names()), Word("list")]
    name, *rest = before or [DEFAULT]
    if name.startswith("-"):
        name, rest = DEFAULT, list(before)
    if name not in names():
        return []
    positional = training if name in WITH_SETTINGS else None
    return _of_parsers([benchmark_parser(source(name))], rest, typed, positional)


def benchmark_parser(source: str) -> argparse.ArgumentParser:
    """A parser with the options in a benchmark's source: importing it would import torch."""
    parser = argparse.ArgumentParser()
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        literals = [each.value for each in node.args if isinstance(each, ast.Constant)]
        if node.func.attr == "add_argument" and literals and str(literals[0]).startswith("--"):
            keywords = {each.arg: each.value for each in node.keywords}
            about = keywords.get("help")
            parser.add_argument(
                str(literals[0]),
                help=str(about.value) if isinstance(about, ast.Constant) else "",
                **({"action": "store_true"} if "action" in keywords else {}),  # type: ignore[arg-type]
            )
    return parser


# -------------------------------------------------------------------------------------------- parts


def _parser(command: str) -> Parser:
    module, _, name = PARSERS[command].partition(":")
    parser: Parser = getattr(importlib.import_module(f"patchmill.{module}"), name)()
    return parser


def _of_parsers(
    parsers: Sequence[argparse.ArgumentParser],
    before: Sequence[str],
    typed: str,
    positional: Choices | None = None,
) -> list[Word]:
    actions = [action for parser in parsers for action in parser._actions]
    by_option = {option: action for action in actions for option in action.option_strings}
    option, equals, _ = typed.partition("=")
    if equals and option in by_option:
        return _values(by_option[option], option, f"{option}=", before)
    last = by_option.get(before[-1]) if before else None
    if last and last.nargs != 0:
        return _values(last, before[-1], "", before, typed)
    if typed.startswith("-"):
        return [
            Word(name, action.help or "")
            for name, action in by_option.items()
            if name.startswith("--") and action.help is not argparse.SUPPRESS
        ]
    if positional:
        return list(positional(before, typed))
    return [Word(c) for a in actions if not a.option_strings for c in a.choices or ()]


def _values(
    action: argparse.Action, option: str, prefix: str, before: Sequence[str], typed: str = ""
) -> list[Word]:
    if action.choices:
        return [Word(prefix + str(choice)) for choice in action.choices]
    if option in VALUES:
        return [word._replace(text=prefix + word.text) for word in VALUES[option](before, typed)]
    return []


def _runs(before: Sequence[str], typed: str) -> list[Word]:
    return folders(typed)


def _peers(before: Sequence[str], typed: str) -> list[Word]:
    from patchmill.benchmarks.peers import NAMES

    return plain(*NAMES, "all")


def _profiles(before: Sequence[str], typed: str) -> list[Word]:
    from patchmill.cluster.resources import PROFILES

    return plain(*sorted(path.stem for path in PROFILES.glob("*.yaml")))


POSITIONAL: dict[str, Choices] = {
    "bug-report": bug_report,
    "report": _runs,
    "status": _runs,
    "watch": _runs,
}
VALUES: dict[str, Choices] = {
    "--cancel": _runs,
    "--cluster": _profiles,
    "--device": lambda before, typed: plain("cpu", "cuda"),
    "--method": lambda before, typed: plain("rbd", "gs", "mc", "learned"),
    "--peers": _peers,
    "--pipeline": lambda before, typed: plain("auto", "threads", "dali", "ffcv"),
    "--recipe": lambda before, typed: presets(),
    "--sweep": training,
    "--tail": _runs,
}
