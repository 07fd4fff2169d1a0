"""One style of command line: usage, help and mistakes of every command that takes options."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Sequence
from typing import NoReturn

from patchmill.loaders.common.errors import MillError

WIDTH = 96  # characters of a line of help


class Parser(argparse.ArgumentParser):
    """Parser of `patchmill prepare` and the like: help in one style, and mistakes as MillErrors.

    `arguments` are those without dashes, for the usage line. `about` says in the imperative what
    the command does, in one paragraph or several; `examples` are shown below it.
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


def refuse_options(words: Sequence[str], names: Iterable[str], why: str) -> None:
    """Raise a MillError if one of these options is among the words: it would have no effect."""
    refused = set(names)
    for word in words:
        if word == "--":
            return
        if (name := word.partition("=")[0]) in refused:
            raise MillError(f"{name} {why}")


def whole_number(text: str, most: int = 2**63 - 1) -> int | None:
    """The number that the digits of a text are; None for another text, or a larger number."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    return int(text) if int(text) <= most else None


def describe(about: str, examples: Sequence[str] = ()) -> str:
    """Paragraphs as lines of help, with examples indented below them."""
    paragraphs = (textwrap.fill(" ".join(text.split()), WIDTH) for text in about.split("\n\n"))
    shown = "\n".join(f"  {example}" for example in examples)
    return "\n\n".join(filter(None, (*paragraphs, shown)))
