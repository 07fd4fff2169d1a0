"""HTML building blocks. All content of a run is escaped here."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from patchmill.loaders.common.printed import printable

NOTHING = "\N{EN DASH}"
LONG = 16  # characters on a card; longer text is set smaller
LARGE = 2**20  # bytes of a PNG; larger ones are embedded as JPEGs


def text(content: object) -> str:
    return escape(printable(content, lines=True), quote=True)


def tag(name: str, *inside: str, **attributes: object) -> str:
    """Build an element. `inside` is markup; `class_` and `aria_label` become class, aria-label."""
    escaped = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    return f"<{name}{escaped}>{''.join(inside)}</{name}>"


def section(title: str, *inside: str, about: str = "") -> str:
    """Build a section; empty if all of `inside` is empty."""
    content = [piece for piece in inside if piece]
    if not content:
        return ""
    lead = [tag("p", text(about), class_="about")] if about else []
    return tag("section", tag("h2", text(title)), *lead, *content) + "\n"


def grid(*pieces: str) -> str:
    content = [piece for piece in pieces if piece]
    return tag("div", *content, class_="grid") if content else ""


def card(name: str, value: str, note: str = "") -> str:
    below = [tag("dd", text(note), class_="note")] if note else []
    size = "long" if len(value) > LONG else "short"
    return tag(
        "div", tag("dt", text(name)), tag("dd", text(value), class_=size), *below, class_="card"
    )


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True
) -> str:
    """Build a table whose rows start with a header cell; others are aligned as numbers or text."""
    if not rows:
        return ""
    head = tag("tr", *(tag("th", text(column), scope="col") for column in columns))
    body = [
        tag(
            "tr", tag("th", text(row[0]), scope="row"), *(tag("td", text(cell)) for cell in row[1:])
        )
        for row in rows
    ]
    element = tag(
        "table",
        tag("caption", text(title)) if title else "",
        tag("thead", head),
        tag("tbody", *body),
        class_="numbers" if numbers else "words",
    )
    return tag(
        "div", element, class_="table", tabindex=0, role="region", aria_label=title or "table"
    )


def folded(title: str, *inside: str) -> str:
    return tag("details", tag("summary", text(title)), *inside)


def picture(path: Path, alt: str) -> str:
    """Embed a PNG; empty if it cannot be read."""
    try:
        kind, data = _encoded(path)
    except OSError:
        return ""
    encoded = base64.b64encode(data).decode()
    image = f'<img alt="{text(alt)}" src="data:image/{kind};base64,{encoded}">'
    return tag("figure", image, tag("figcaption", text(alt)), class_="picture")


def _encoded(path: Path) -> tuple[str, bytes]:
    data = path.read_bytes()
    if len(data) <= LARGE:
        return "png", data
    out = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(out, "JPEG", quality=90, subsampling=0)
    return "jpeg", out.getvalue()
