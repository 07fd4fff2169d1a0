"""Build the documentation as a site, in build/site: python docs/make_site.py [--version 0.2]

The pages are plain Markdown that reads as well on GitHub. They are copied to build/docs in the
repository's own layout, together with every file that they link to, so that no link differs; a link
to a Python file leads to a page about it, which make_api.py writes from its docstrings. Zensical
then builds the site as mkdocs.yml says. With a version the site is one of several in build/site,
among which readers choose: versions that are there already stay.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import make_api

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "build/docs"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--version", help="make it one of several versions in build/site")
    version = parser.parse_args().version
    pages = stage()
    print(f"{len(pages)} pages in {STAGE.relative_to(ROOT)}")
    settings = configure(version)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", settings]
    if code := subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(code)
    if version:
        add_version(ROOT / "build/site", version)


def configure(version: str | None, build: Path = ROOT / "build") -> Path:
    """Write Zensical's settings for a build in this folder; their path."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("build/", "")
    if version:
        text = text.replace("site_dir: site", f"site_dir: site/{version}")
        text += "extra: {version: {provider: mike}}\n"
    settings = build / "mkdocs.yml"
    settings.write_text(text, encoding="utf-8")
    return settings


def add_version(site: Path, version: str) -> None:
    """List the version where the theme looks for it, and let the site begin with the newest."""
    path = site / "versions.json"
    known = json.loads(path.read_text()) if path.is_file() else []
    entry = {"version": version, "title": version, "aliases": []}
    versions = [entry, *(other for other in known if other["version"] != version)]
    versions.sort(key=lambda other: [int(n) for n in re.findall(r"\d+", other["version"])])
    path.write_text(json.dumps(versions[::-1], indent=1) + "\n")
    newest = versions[-1]["version"]
    (site / "index.html").write_text(
        f'<!doctype html><meta http-equiv="refresh" content="0; url={newest}/">'
        f'<a href="{newest}/">{newest}</a>\n'
    )


def stage(to: Path = STAGE) -> list[Path]:
    """Copy all pages, and what they link to; the paths of all files that are pages now."""
    shutil.rmtree(to, ignore_errors=True)
    documents = [ROOT / name for name in TOP if (ROOT / name).is_file()]
    waiting = documents + sorted((ROOT / "docs").rglob("*.md"))
    done: dict[Path, Path] = {}
    while waiting:
        path = waiting.pop()
        if path in done:
            continue
        done[path] = target = to / page_of(path.relative_to(ROOT))
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            target.write_text(LINK.sub(linked_page, text), encoding="utf-8")
            waiting += links(path, text)
        elif path.suffix == ".py":
            target.write_text(make_api.page(ROOT, path), encoding="utf-8")
        else:
            shutil.copyfile(path, target)
    return [path for path in done.values() if path.suffix == ".md"]


def links(path: Path, text: str) -> list[Path]:
    """The files that a page links to."""
    found = [(path.parent / match[1]).resolve() for match in LINK.finditer(text)]
    return [file for file in found if file.is_file() and file.is_relative_to(ROOT)]


def linked_page(match: re.Match[str]) -> str:
    return str(page_of(Path(match[1]))) + (match[2] or "")


def page_of(path: Path) -> Path:
    """loaders/build.py -> loaders/build.py.md; other files keep their names."""
    return Path(f"{path}.md") if path.suffix == ".py" else path


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
