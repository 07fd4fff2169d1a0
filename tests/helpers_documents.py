"""Documents and their code blocks.

A comment on the line above a block controls what a test does with it:

| | |
| --- | --- |
| none | Python is run, in order, in one namespace per page; commands are checked, not run |
| `<!-- file: NAME -->` | written to that file in the page's folder |
| `<!-- run -->`, `<!-- run: ARGUMENTS -->` | commands are run, training with more arguments |
| `<!-- not run: REASON -->` | Python is parsed and its imports of patchmill are looked up |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S
)
MARKER = re.compile(r"<!-- (file|run|not run)(?:: (.*?))? -->\s*$")
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PROGRAMS = ("python", "patchmill", "torchrun", "make", "pip")


@dataclass(frozen=True)
class Block:
    document: Path
    line: int
    language: str
    code: str
    marker: str  # file, run, not run, or empty
    argument: str  # of the marker

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Lines that start a known program, with their continuations and without comments."""
        joined = re.sub(r"\\\n\s*", " ", self.code)
        lines = re.sub(r"\n {4,}(?=\S)", " ", joined).splitlines()
        lines = [re.sub(r"(^|\s+)#\s.*", "", line).strip() for line in lines]
        return [line for line in lines if line and program(line) in PROGRAMS]


def program(line: str) -> str:
    """The program that a command line starts, after `NAME=value` assignments."""
    words = [word for word in line.split() if not re.match(r"[A-Z_]+=", word)]
    return words[0].rpartition("/")[2] if words else ""


def documents() -> list[Path]:
    """All Markdown pages for users."""
    docs = ROOT / "docs"
    return sorted([*(ROOT / name for name in TOP), *docs.rglob("*.md")])


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    found = []
    for match in FENCE.finditer(text):
        above = text[: match.start()].rstrip("\n ")
        marker = MARKER.search(above[above.rfind("\n") + 1 :])
        indent = len(match["indent"])
        code = "".join(line[indent:] or "\n" for line in match["code"].splitlines(keepends=True))
        found.append(
            Block(
                document,
                text.count("\n", 0, match.start()) + 1,
                match["language"],
                code,
                marker[1] if marker else "",
                (marker[2] or "") if marker else "",
            )
        )
    return found
