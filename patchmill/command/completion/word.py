"""A completion candidate, with a short description for shells that show one."""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    text: str
    about: str = ""


def plain(*texts: str) -> list[Word]:
    return [Word(text) for text in texts]
