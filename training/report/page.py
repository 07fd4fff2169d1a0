"""The report as one self-contained HTML page: no script, no font, no request."""

from __future__ import annotations

from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import reason, write_atomic
from patchmill.training.report import run_data, sections, summary
from patchmill.training.report.markup import tag, text
from patchmill.training.report.run_data import RunData
from patchmill.training.report.style import STYLE

NAME = "report.html"

# The browser must not fetch anything, whatever names from a run end up in the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write(folder: Path) -> Path:
    """Write the report of the run in `folder`, finished or not; return its path."""
    path = Path(folder) / NAME
    html = page(run_data.read(Path(folder)))
    try:
        write_atomic(path, html, durable=True)
    except OSError as error:
        raise MillError(f"cannot write {path}: {reason(error)}") from None
    return path


def page(run: RunData) -> str:
    title = f"{summary.title(run)} · {run.folder.resolve().name}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + summary.head(run)
        + tag("main", summary.cards(run), sections.everything(run))
        + "\n</body>\n</html>\n"
    )
