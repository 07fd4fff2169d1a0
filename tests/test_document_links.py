"""Links in documents lead somewhere: files exist, and the headings that anchors name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers_documents import FENCE, ROOT, documents

DOCUMENTS = [*documents(), ROOT / "CHANGELOG.md", ROOT / "loaders/pipelines/README.md"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub and the site make them."""
    text = FENCE.sub("", document.read_text())
    return {anchor(heading) for heading in HEADING.findall(text)}


def anchor(heading: str) -> str:
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w -]", "", plain).strip().lower().replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path):
    for link in LINK.findall(FENCE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        name, _, fragment = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.is_file(), f"{link}: there is no such file"
        assert target.is_relative_to(ROOT), link
        if fragment:
            assert fragment in anchors(target), f"{link}: no such heading"
            # GitHub keeps both hyphens of "a - b", the site one.
            assert "--" not in fragment, f"{link}: give the heading a plainer name"
