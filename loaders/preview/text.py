"""Captions of a contact sheet, and functions that measure, wrap and draw text.

The font is PIL's default, which has few characters beyond ASCII.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import ImageDraw, ImageFont

from patchmill.kernels.views.decisions import GREY_NEVER, NO_JITTER, PASTE_NEVER

INK, MUTED = (31, 35, 40), (101, 109, 118)

ABBREVIATIONS = {  # for captions of small views
    "flip": "F",
    "turn": "T",
    "paste": "P",
    "jitter": "J",
    "grey": "G",
    "blur": "B",
    "solarise": "S",
}

Happened = Sequence[tuple[str, np.ndarray]]  # operations, and the cells they were applied to
Xy = tuple[float, float]
Rgb = tuple[int, int, int]


@functools.cache
def font(size: float) -> Any:
    return ImageFont.load_default(size=size)


def text_width(text: str, size: float) -> float:
    return font(size).getlength(text)


def line_height(size: float) -> int:
    return round(size * 1.3)


def describe_draws(rows: np.ndarray, extra: Happened = ()) -> list[str]:
    """List the augmentations of a view, or of the cells of a grid, in the order of application.

    A count follows if only some cells of a grid have one: `blur 3/16`.
    """
    first, cells = rows[0], len(rows)
    words = ["flip"] if first["flip"] else []
    words += [f"turn {90 * first['turns']}°"] if first["turns"] else []
    for word, applied in (
        ("paste", rows["paste"] != PASTE_NEVER),
        ("jitter", rows["order"] != NO_JITTER),
        ("grey", rows["grey"] != GREY_NEVER),
        ("blur", rows["sigma"] > 0),
        ("solarise", rows["solarise"] != 0),
        *extra,
    ):
        if not applied.any():
            continue
        if word == "blur" and cells == 1:
            word = f"blur {first['sigma']:.1f}"
        words.append(word if applied.all() else f"{word} {applied.sum()}/{cells}")
    return words


def abbreviate(words: Iterable[str]) -> list[str]:
    """Abbreviate `["flip", "turn 90°", "blur 1.3"]` to `["F", "T90", "B1.3"]`."""
    named = (word.partition(" ") for word in words)
    return [abbreviation(name) + figures.removesuffix("°") for name, _, figures in named]


def abbreviation(name: str) -> str:
    """Abbreviate `solarise` to S, and an operation such as RandomErasing to RE."""
    return ABBREVIATIONS.get(name) or "".join(filter(str.isupper, name)) or name[:2]


def wrap(pieces: Sequence[str], size: float, width: float, join: str = " ") -> list[str]:
    """Join pieces into lines no wider than `width`; elide a piece that is wider."""
    lines: list[str] = []
    for piece in pieces:
        longer = lines[-1] + join + piece if lines else ""
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(elide(piece, size, width))
    return lines


def elide(text: str, size: float, width: float) -> str:
    """Replace the middle of a text that is wider than `width` by an ellipsis."""
    elided = text
    while text_width(elided, size) > width and len(text) > 2:
        text = text[: len(text) // 2] + text[len(text) // 2 + 1 :]
        elided = text[: len(text) // 2] + "…" + text[len(text) // 2 :]
    return elided


def write_lines(
    pen: ImageDraw.ImageDraw, at: Xy, lines: Sequence[str], size: float, colour: Rgb = MUTED
) -> None:
    """Draw lines of text below one another; `at` is the top left corner of the first one."""
    for i, line in enumerate(lines):
        x, y = at[0], at[1] + (i + 0.5) * line_height(size)
        pen.text((x, y), line, colour, font(size), anchor="lm")
