"""Pieces of a page. Whatever comes from a run is escaped here, and nowhere else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

NOTHING = "\N{EN DASH}"
LONG = 16  # letters of a card that is set smaller
LARGE = 2**20  # bytes of a picture that a JPEG takes the place of


def text(content: object) -> str:
    return escape(str(content), quote=True)


def tag(name: str, *inside: str, **attributes: object) -> str:
    """`inside` is markup; `class_` and `aria_label` are class and aria-label."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    return f"<{name}{said}>{''.join(inside)}</{name}>"


def section(title: str, *inside: str, about: str = "") -> str:
    """Nothing where nothing is inside."""
    content = [piece for piece in inside if piece]
    if not content:
        return ""
    lead = [tag("p", text(about), class_="about")] if about else []
    return tag("section", tag("h2", text(title)), *lead, *content) + "\n"


def grid(*pieces: str) -> str:
    there = [piece for piece in pieces if piece]
    return tag("div", *there, class_="grid") if there else ""


def card(name: str, value: str, note: str = "") -> str:
    below = [tag("dd", text(note), class_="note")] if note else []
    size = "long" if len(value) > LONG else "short"
    return tag(
        "div", tag("dt", text(name)), tag("dd", text(value), class_=size), *below, class_="card"
    )


def table(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True
) -> str:
    """The first cell of a row is its header; the others are set as `numbers`, or as words."""
    if not rows:
        return ""
    head = tag("tr", *(tag("th", text(it), scope="col") for it in heads))
    body = [
        tag("tr", tag("th", text(row[0]), scope="row"), *(tag("td", text(it)) for it in row[1:]))
        for row in rows
    ]
    whole = tag(
        "table",
        tag("caption", text(title)) if title else "",
        tag("thead", head),
        tag("tbody", *body),
        class_="numbers" if numbers else "words",
    )
    return tag("div", whole, class_="table", tabindex=0, role="region", aria_label=title or "table")


def folded(title: str, *inside: str) -> str:
    return tag("details", tag("summary", text(title)), *inside)


def picture(path: Path, alt: str) -> str:
    """A PNG, in the page itself; nothing where it cannot be read."""
    try:
        kind, data = _encoded(path)
    except OSError:
        return ""
    letters = base64.b64encode(data).decode()
    image = f'<img alt="{text(alt)}" src="data:image/{kind};base64,{letters}">'
    return tag("figure", image, tag("figcaption", text(alt)), class_="picture")


def _encoded(path: Path) -> tuple[str, bytes]:
    data = path.read_bytes()
    if len(data) <= LARGE:
        return "png", data
    out = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(out, "JPEG", quality=90, subsampling=0)
    return "jpeg", out.getvalue()
