"""The site has every page, with working links, and pages about the code made of docstrings."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers_documents import ROOT, documents

pytest.importorskip("griffe", reason="pages about the code need griffe: pip install -e '.[docs]'")
sys.path.insert(0, str(ROOT / "docs"))
import make_site

LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


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


def test_the_site_builds(staged: Path, tmp_path: Path):
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("needs zensical: pip install -e '.[docs]'")
    settings = (ROOT / "mkdocs.yml").read_text()
    settings = settings.replace("build/docs", "docs").replace("build/site", "site")
    (tmp_path / "mkdocs.yml").write_text(settings)
    shutil.copytree(staged, tmp_path / "docs")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every view of every image" in (tmp_path / "site/index.html").read_text()
    assert (tmp_path / "site/docs/guides/start/index.html").is_file()
    assert (tmp_path / "site/search.json").stat().st_size > 100_000
