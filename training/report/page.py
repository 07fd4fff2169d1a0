"""One page of HTML that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.files import write_atomic
from patchmill.training.report import found as finding
from patchmill.training.report import sections, summary
from patchmill.training.report.found import Found
from patchmill.training.report.markup import tag, text
from patchmill.training.report.style import STYLE

NAME = "report.html"

# Whatever a run is called, a browser fetches nothing for it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write(folder: Path) -> Path:
    """Report on the run in `folder`, as far as it has come; returns where."""
    path = Path(folder) / NAME
    whole = page(finding.look(Path(folder)))
    try:
        write_atomic(path, whole, durable=True)
    except OSError as error:
        raise MillError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def page(found: Found) -> str:
    title = f"{summary.title(found)} · {found.folder.resolve().name}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + summary.head(found)
        + tag("main", summary.cards(found), sections.everything(found))
        + "\n</body>\n</html>\n"
    )
