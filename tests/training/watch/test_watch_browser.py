"""The page in a real browser, while a run is being written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import helpers_browser
import helpers_report
import pytest
from helpers_browser import Page
from helpers_watch import begin, impatient, log, serving

from patchmill.training.watch.drawings import Subject
from patchmill.training.watch.routes import Site
from patchmill.training.watch.server import Server

DRAWN = "!!document.querySelector('[data-chart=\"Loss\"] path.curve')"
READS = "document.querySelector('[data-chart=\"Loss\"] .values').textContent"
# Number of points of the loss of each run.
POINTS = (
    "[...document.querySelectorAll('[data-chart=\"Loss\"] path.curve')]"
    ".map(path => path.getAttribute('d').split(/[ML]/).length - 1)"
)


@contextlib.contextmanager
def page_of(server: Server, folder: Path, **size: int) -> Iterator[Page]:
    folder.mkdir()
    with helpers_browser.browser(folder) as browser:
        page = browser.open(server.url, **size)
        yield page
        assert page.errors() == []
        origins = {urlsplit(url)[:2] for url in page.requests() if not url.startswith("data:")}
        assert origins == {("http", f"127.0.0.1:{server.port}")}


def test_curves_appear_and_grow_while_a_run_is_written(tmp_path: Path, monkeypatch):
    impatient(monkeypatch)
    runs = tmp_path / "runs"
    runs.mkdir()
    with serving(runs) as server, page_of(server, tmp_path / "profile") as page:
        page.until("document.body.innerText.includes('it appears here when it starts')")
        assert page.run("location.search") == ""  # the key is out of sight

        recorder = begin(runs / "first")
        log(recorder, range(1, 11))
        page.until(f"{DRAWN} && {POINTS}[0] === 10")
        assert page.run("document.title").startswith("▶ dilo on scenes")
        with open(runs / "first" / "log.csv", "a") as file:
            file.write("11,nan,0.03,0.4,800,0.02\n12,")
        log_rest = "3.5,0.03,0.4,800,0.02\n13,3.25,0.03,0.5,800,0.02\n"
        page.until("document.querySelector('#state dd').textContent === '0'")
        with open(runs / "first" / "log.csv", "a") as file:
            file.write(log_rest)
        page.until(f"{POINTS}[0] === 12 && {READS} === '3.25'")
        recorder.evaluation(10, 0.3, {"knn": 0.4})
        page.until('document.querySelector(\'[data-chart="KNN"], [data-chart="kNN"]\')')
        helpers_report.write(runs / "first", status={"state": "failed", "step": 13})
        page.until("document.querySelector('.badge').textContent === 'failed'")

        label = page.run("document.querySelector('[data-chart=\"Loss\"] svg').ariaLabel")
        assert label.startswith("Loss. first: ") and "3.25 at last" in label
        page.run("document.querySelector('[data-chart=\"Loss\"] svg').focus()")
        for _ in range(2):
            page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft", code="ArrowLeft")
        page.until(f"{READS}.startsWith('step 1')")
        page.run("document.querySelector('#smooth').value = 0.8")
        page.run("document.querySelector('#log').click()")
        page.until("document.querySelector('[data-chart=\"Loss\"] path.raw')")
        page.until(
            "document.querySelector('[data-chart=\"Loss\"] svg').ariaLabel.includes('logarithmic')"
        )
        (runs / "first").rename(tmp_path / "gone")
        page.until("document.getElementById('notice').textContent.includes('is gone')")


def test_selected_runs_are_overlaid_and_their_settings_compared(tmp_path: Path, monkeypatch):
    impatient(monkeypatch)
    runs = tmp_path / "runs"
    for name, method, steps in (("a", "dilo", 20), ("b", "moco", 30), ("c", "gtsa", 5)):
        log(begin(runs / name, method, time=4e9 + steps), range(1, steps + 1))
    with serving(runs) as server, page_of(server, tmp_path / "profile") as page:
        page.until(f"{DRAWN} && {POINTS}.length === 1")
        assert page.run("document.querySelectorAll('#runs tbody tr').length") == 3
        page.run("document.querySelectorAll('#runs tbody input')[0].click()")
        page.until(f"{POINTS}.length === 2")
        assert sorted(page.run(POINTS)) == [20, 30]
        assert page.run("location.hash") == "#run=b&run=a"
        page.until("document.querySelector('#differences')")
        assert page.run("document.querySelectorAll('#differences .differs').length") == 2
        text = page.run("document.querySelector('#differences').innerText")
        assert "method_name" in text and "epochs" not in text
        page.run("window.before = true; location.reload()")
        page.until(f"!window.before && {DRAWN} && {POINTS}.length === 2")
        page.run("document.querySelectorAll('thead button')[2].click()")
        page.until("document.querySelector('#runs tbody th').textContent === 'a'")
        page.run("document.querySelectorAll('thead button')[7].click()")


@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_fits(tmp_path: Path, monkeypatch, width: int):
    impatient(monkeypatch)
    folder = tmp_path / "run"
    loader = {
        "stages": {
            "decode": {"items": 9, "seconds": 1.0, "lanes": 2, "occupancy": 0.5, "crew": "workers"}
        }
    }
    log(begin(folder, loader=loader | {"wait_share": 0.3, "bottleneck": "decode"}), range(1, 300))
    (folder / "ledger-rank0.jsonl").write_text(
        '{"id": 3, "where": "/a/b.jpg", "reason": "cut off"}\n'
    )
    with (
        serving(folder) as server,
        page_of(server, tmp_path / "profile", width=width, height=800) as page,
    ):
        page.until(f"{DRAWN} && !!document.querySelector('.bad .reason')")
        assert page.run("document.querySelector('[data-stage=decode].limit .value').textContent")
        wide = page.run("document.documentElement.scrollWidth")
        assert wide <= width
        small = page.run(
            "[...document.querySelectorAll('svg')].filter(s => s.closest('.chart'))"
            ".map(s => s.getBoundingClientRect().width)"
        )
        assert min(small) > 250
        assert page.run("document.getElementById('runs').hidden")


def test_views_are_drawn_and_their_shared_regions_outlined(tmp_path: Path):
    subject = Subject("scenes(count=9, size=48)", "gtsa(global_size=32, local_size=16)")
    tiles = "document.querySelectorAll('.sample .view')"
    site = Site(subject=subject)
    site.answer("/views", {})  # may compile kernels
    with serving(site) as server, page_of(server, tmp_path / "profile") as page:
        page.until(f"{tiles}.length === 4 * 10")  # 2 global and 8 local views of 4 images
        pixels = f"{tiles}[0]?.querySelector('image').href.baseVal.slice(-300)"
        first = page.run(pixels)
        page.run(f"{tiles}[0].click()")
        page.until(f"{tiles}[0].ariaPressed === 'true'")
        # Crops of GTSA overlap every global crop, and other images are left alone.
        shared = page.run(f"[...{tiles}].map(tile => tile.querySelectorAll('.region').length)")
        assert min(shared[1:10]) == 1 and max([shared[0], *shared[10:]]) == 0
        box = page.run(f"{tiles}[0].querySelector('svg').getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        page.until("document.querySelectorAll('.original .point').length === 2")
        page.run("document.querySelector('#views button').click()")  # draw again
        page.until(f"{pixels} && {pixels} !== {first!r}")
