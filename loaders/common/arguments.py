"""Argument parsing with uniform usage, help and error messages for every command with options."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Sequence
from typing import NoReturn

from patchmill.loaders.common.errors import MillError

WIDTH = 96  # characters of a line of help


class Parser(argparse.ArgumentParser):
    """Argument parser with uniform help, which raises MillErrors for mistakes.

    `arguments` are the positional ones, for the usage line. `about` describes the command in the
    imperative, in one or more paragraphs; `examples` are shown below it.
    """

    def __init__(
        self, command: str, arguments: str, about: str, examples: Sequence[str] = ()
    ) -> None:
        super().__init__(
            prog=command,
            usage=" ".join(filter(None, (command, arguments, "[options]"))),
            description=describe(about, examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise MillError(f"{message}; --help lists the options")


def refuse_options(arguments: Sequence[str], names: Iterable[str], why: str) -> None:
    """Raise a MillError if the arguments include one of these options: it would have no effect."""
    refused = set(names)
    for argument in arguments:
        if argument == "--":
            return
        if (name := argument.partition("=")[0]) in refused:
            raise MillError(f"{name} {why}")


def whole_number(text: str, most: int = 2**63 - 1) -> int | None:
    """Parse a text of digits; None for any other text, or a number above `most`."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    return int(text) if int(text) <= most else None


def describe(about: str, examples: Sequence[str] = ()) -> str:
    """Format paragraphs as lines of help, with examples indented below them."""
    paragraphs = (textwrap.fill(" ".join(text.split()), WIDTH) for text in about.split("\n\n"))
    shown = "\n".join(f"  {example}" for example in examples)
    return "\n\n".join(filter(None, (*paragraphs, shown)))
