"""A word that may be completed to, with a few words about it for shells that show those."""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    text: str
    about: str = ""


def plain(*texts: str) -> list[Word]:
    return [Word(text) for text in texts]
