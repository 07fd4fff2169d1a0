"""Completion candidates at the cursor: `patchmill __complete SHELL ...` prints one per line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from patchmill.command.completion.options import of_bench, of_command, of_submit
from patchmill.command.completion.settings import KEYS_OF
from patchmill.command.completion.word import Word, plain
from patchmill.command.table import COMMANDS

UNFINISHED = ("=", "/", ":", ".")  # endings of unfinished words, which no space follows


def main(arguments: Sequence[str]) -> None:
    shell, *words = arguments
    if shell == "bash":
        line, breaks = words
        lines = bash_replies(line, breaks)
    else:
        lines = [f"{word.text}\t{word.about}" for word in complete(words)]
    for each in lines:
        print(each)


def complete(words: Sequence[str]) -> list[Word]:
    """Candidates for the last of `words`, which is partly typed."""
    *before, typed = words or [""]
    return [word for word in _choices(before, typed) if word.text.startswith(typed)]


def _choices(before: Sequence[str], typed: str) -> list[Word]:
    commands = [Word(word, command.title) for word, command in COMMANDS.items()]
    if not before:
        return [*commands, Word("help", "say more about a command"), *plain("--help", "--version")]
    command, *rest = before
    if command == "help":
        return [] if rest else commands
    if command == "submit":
        return of_submit(rest, typed)
    if command == "bench":
        return of_bench(rest, typed)
    if command not in KEYS_OF:
        return of_command(command, rest, typed)
    if typed.startswith("-"):
        return plain("--help", "--show") if command == "train" else plain("--help")
    return KEYS_OF[command](rest, typed)


# --------------------------------------------------------------------------------------------- bash


def bash_replies(line: str, breaks: str) -> list[str]:
    """Replies as bash inserts them for a line that ends at the cursor.

    Bash replaces the text after the last character at which it splits words, one of `breaks`.
    Finished words end with a space, except within quotes, where it would be part of the word.
    """
    words, quoted = split(line)
    typed = words[-1]
    start = 1 + max(
        (typed.rfind(character) for character in "=:" if character in breaks), default=-1
    )
    texts = [word.text for word in complete(words[1:])]
    if quoted:
        return [text[start:] for text in texts]
    return [
        re.sub(r"([^\w@%+=:,./~-])", r"\\\1", text[start:])
        + ("" if text.endswith(UNFINISHED) else " ")
        for text in texts
    ]


def split(line: str) -> tuple[list[str], bool]:
    """The words of a line, the last one empty after a space, and True if a quote is open."""
    for quote in ("", "'", '"'):
        try:
            words = shlex.split(line + quote)
        except ValueError:
            continue
        ended = not quote and line[-1:].isspace()
        return [*words, *([""] if ended else [])], bool(quote)
    return line.split(" "), False
