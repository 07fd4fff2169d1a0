"""What the captions of a contact sheet say, and how text is measured, wrapped and set.

The font is the one that PIL brings along; it knows little more than ASCII.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import ImageDraw, ImageFont

from patchmill.kernels.views.decisions import GREY_NEVER, NO_JITTER, PASTE_NEVER

INK, MUTED = (31, 35, 40), (101, 109, 118)

SHORT = {  # for views too small for words
    "flip": "F",
    "turn": "T",
    "paste": "P",
    "jitter": "J",
    "grey": "G",
    "blur": "B",
    "solarise": "S",
}

Xy = tuple[float, float]
Rgb = tuple[int, int, int]


@functools.cache
def font(size: float) -> Any:
    return ImageFont.load_default(size=size)


def width(text: str, size: float) -> float:
    return font(size).getlength(text)


def line_height(size: float) -> int:
    return round(size * 1.3)


def drawn(rows: np.ndarray) -> list[str]:
    """What was drawn for a view, or for the cells of a grid, in the order in which it is applied.

    What only some cells of a grid got is followed by how many: `blur 3/16`.
    """
    first, cells = rows[0], len(rows)
    words = ["flip"] if first["flip"] else []
    words += [f"turn {90 * first['turns']}°"] if first["turns"] else []
    for word, happened in (
        ("paste", rows["paste"] != PASTE_NEVER),
        ("jitter", rows["order"] != NO_JITTER),
        ("grey", rows["grey"] != GREY_NEVER),
        ("blur", rows["sigma"] > 0),
        ("solarise", rows["solarise"] != 0),
    ):
        if not happened.any():
            continue
        if word == "blur" and cells == 1:
            word = f"blur {first['sigma']:.1f}"
        words.append(word if happened.all() else f"{word} {happened.sum()}/{cells}")
    return words


def shortened(words: Iterable[str]) -> list[str]:
    """`["flip", "turn 90°", "blur 1.3"]` as `["F", "T90", "B1.3"]`."""
    named = (word.partition(" ") for word in words)
    return [SHORT[name] + figures.removesuffix("°") for name, _, figures in named]


def wrapped(pieces: Sequence[str], size: float, room: float, join: str = " ") -> list[str]:
    """The pieces joined into lines no wider than `room`; a piece that is wider is shortened."""
    lines: list[str] = []
    for piece in pieces:
        longer = lines[-1] + join + piece if lines else ""
        if lines and width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(elided(piece, size, room))
    return lines


def elided(text: str, size: float, room: float) -> str:
    """The text, with its middle left out where it is too wide."""
    kept = text
    while width(kept, size) > room and len(text) > 2:
        text = text[: len(text) // 2] + text[len(text) // 2 + 1 :]
        kept = text[: len(text) // 2] + "…" + text[len(text) // 2 :]
    return kept


def write(
    pen: ImageDraw.ImageDraw, at: Xy, lines: Sequence[str], size: float, colour: Rgb = MUTED
) -> None:
    """Set lines of text below one another; `at` is where the first one's top left corner is."""
    for i, line in enumerate(lines):
        x, y = at[0], at[1] + (i + 0.5) * line_height(size)
        pen.text((x, y), line, colour, font(size), anchor="lm")
