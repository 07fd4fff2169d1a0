"""The site has every page, with working links, and API pages built from docstrings."""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers_browser import browser
from helpers_documents import ROOT, documents

pytest.importorskip("griffe", reason="pages about the code need griffe: pip install -e '.[docs]'")
sys.path.insert(0, str(ROOT / "docs"))
import make_site

LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")

# Zensical's search is in a shadow root.
SHADOWS = "[...document.querySelectorAll('*')].flatMap(it => it.shadowRoot ?? [])"


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "docs"
    make_site.stage(folder)
    return folder


def test_every_document_is_a_page_and_in_the_navigation(staged: Path):
    pages = [str(path.relative_to(ROOT)) for path in documents()]
    assert all((staged / page).is_file() for page in pages)
    named = set(re.findall(r"[\w/.-]+\.md", str(navigation())))
    assert set(pages) <= named, "mkdocs.yml leaves out a page"
    assert all((staged / page).is_file() for page in named)


def navigation() -> list[object]:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]


def test_links_of_the_pages_work_on_the_site(staged: Path):
    for page in staged.rglob("*.md"):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in LINK.findall(text):
            assert (page.parent / link).is_file(), f"{page.relative_to(staged)}: {link}"


def test_code_pages_have_signatures_docstrings_and_the_code(staged: Path):
    text = (staged / "loaders/build.py.md").read_text()
    assert "# patchmill.loaders.build" in text and "## build" in text
    assert "    batch_size: int,\n" in text and "* `prefetch`: batches prepared ahead" in text
    loader = (staged / "loaders/loader.py.md").read_text()
    assert "### state_dict" in loader and "_start" not in loader.partition("## The code")[0]
    views = (staged / "loaders/recipe_parts.py.md").read_text()
    assert "* `grey_first`: greyscale before jitter" in views


@pytest.fixture(scope="module")
def site(staged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the site built by Zensical."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("needs zensical: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("built")
    make_site.configure(None, folder)
    shutil.copytree(staged, folder / "docs")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_the_site_builds(site: Path):
    assert "decodes each image once" in (site / "index.html").read_text()
    assert (site / "docs/guides/start/index.html").is_file()
    assert (site / "search.json").stat().st_size > 100_000


def test_a_browser_shows_it_and_searches_it(site: Path, tmp_path: Path):
    with serving(site) as address, browser(tmp_path) as opened:
        for path in ("", "docs/guides/recipes/", "loaders/build.py/"):
            page = opened.open(address + path)
            page.until("document.querySelector('h1')")
            page.run("document.querySelectorAll('img').forEach(it => it.loading = 'eager')")
            page.until("[...document.images].every(it => it.complete && it.naturalWidth)")
            assert page.errors() == []
            assert all(url.startswith((address, "data:", "blob:")) for url in page.requests())
        page.run("document.querySelector('.md-search__button').click()")
        page.until(f"{SHADOWS}.some(it => it.activeElement?.matches('input'))")
        page.call("Input.insertText", text="load_state_dict")
        page.until(f"{SHADOWS}.some(it => it.textContent.includes('patchmill.loaders.loader'))")


def test_versions_are_published_next_to_each_other(tmp_path: Path):
    settings = make_site.configure("0.10", tmp_path).read_text()
    assert "site_dir: site/0.10\n" in settings and yaml.safe_load(settings)["extra"]["version"]
    for version in ("0.9", "0.10", "0.9"):
        make_site.add_version(tmp_path, version)
    listed = json.loads((tmp_path / "versions.json").read_text())
    assert [entry["version"] for entry in listed] == ["0.10", "0.9"]
    assert 'href="0.10/"' in (tmp_path / "index.html").read_text()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; yield its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
