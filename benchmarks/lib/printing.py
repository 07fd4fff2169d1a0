"""Tables and lines of reports: rich's, or plain ones if rich is not installed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MARKUP = re.compile(r"\[/?[a-z]*\]")


def console() -> Console:
    try:
        from rich.console import Console
    except ImportError:
        return PlainConsole()  # type: ignore[return-value]
    return Console(highlight=False)


def new_table(first: str, *others: str) -> Table:
    """A table with a left-aligned first column; the others are right-aligned."""
    try:
        from rich.table import Table
    except ImportError:
        return PlainTable(first, *others)  # type: ignore[return-value]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, min_width=17, no_wrap=True)
    for title in others:
        table.add_column(title, justify="right")
    return table


class PlainConsole:
    """The part of rich's Console that reports use."""

    def print(self, content: object = "", *, markup: bool = True, **_: Any) -> None:
        text = str(content)
        print(_MARKUP.sub("", text) if markup else text)


class PlainTable:
    """The part of rich's Table that reports use."""

    def __init__(self, *titles: str) -> None:
        self._rows = [titles]
        self.columns: list[Any] = []

    def add_row(self, *cells: str) -> None:
        self._rows.append(cells)

    def __str__(self) -> str:
        rows = [[_MARKUP.sub("", cell) for cell in row] for row in self._rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for first, *others in rows:
            right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
            lines.append("  ".join([first.ljust(widths[0]), *right]))
        return "\n".join(lines)
