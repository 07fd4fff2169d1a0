"""The report: every section of a full run, and those available for any other."""

from __future__ import annotations

import base64
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import helpers_report
import numpy as np
import pytest
from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.training import report
from patchmill.training.report import __main__ as command
from patchmill.training.report import run_data

EMPTY = {"meta", "img", "br", "hr", "link", "input"}  # elements that are not closed


class Page(HTMLParser):
    """Parses a page; fails on unbalanced tags, and collects tags and texts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: dict[str, list[str]] = {}
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.path, f"not closed: {self.path}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.path.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.path and self.path.pop() == tag, f"{tag} closes nothing"

    def handle_data(self, data: str) -> None:
        for tag in self.path:
            self.said.setdefault(tag, []).append(data)

    def texts(self, tag: str) -> list[str]:
        return self.said.get(tag, [])

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def charts(self) -> list[str]:
        return [svg["aria-label"] or "" for svg in self.all("svg")]


@pytest.fixture
def full(tmp_path: Path) -> Page:
    return Page(report.write(helpers_report.full(tmp_path / "dilo-scenes-demo")))


def test_a_full_run_has_every_section(full: Page):
    assert full.texts("h2") == [
        "Learning", "Throughput", "What training sees", "Evaluations", "Patches",
        "Foreground and background", "Configuration",
    ]  # fmt: skip
    assert full.texts("h1") == ["dilo on scenes", "done"]
    titles = [said.partition(".")[0] for said in full.charts]
    assert titles == [
        "Loss", "kNN accuracy", "Learning rate", "Gradient norm", "Accuracy", "Spread",
        "Images per second", "Share of time waiting for data",
        "Convergence of the mean over patches",
    ]  # fmt: skip
    assert sum(map(len, map(str, full.texts("pre")))) > 100


def test_cards_have_the_main_figures(full: Page):
    values = full.texts("dl")
    told = dict(itertools.pairwise(values))
    expected = {
        "Method": "dilo", "Data": "scenes", "Epochs": "10 of 10", "kNN": "70.0%", "Loss": "4.151",
        "Images/s": "812", "Machine": "2 cores", "Versions": "patchmill 0.1",
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    assert "untrained: 34.6%" in values and "of training, without evaluations; 1 restart" in values
    assert told["Time"] == "0:00:47"  # 300 steps of 128 images at 812 a second


def test_knn_is_compared_with_an_untrained_network(full: Page):
    (line,) = [it for it in full.all("line") if it["class"] == "level"]
    assert line["y1"] == line["y2"]
    assert "untrained 34.6%" in full.texts("svg")


def test_figures_of_evaluations_are_in_tables(full: Page):
    cells = full.texts("td")
    assert {"71.3%", "74.1%", "66.3%", "81.0%", "51.3%", "10.0%"} <= set(cells)
    heads = full.texts("th")
    assert {"central", "256 patches", "h kNN", "z linear", "of another class"} <= set(heads)


def test_pictures_are_in_the_page_and_described(full: Page):
    images = full.all("img")
    assert len(images) == 3 and all(image["alt"] for image in images)
    for image in images:
        kind, _, data = (image["src"] or "").partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")


def test_a_large_picture_is_made_smaller(tmp_path: Path):
    folder = helpers_report.full(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    Image.fromarray(noise).save(folder / "views.png")
    (folder / "masks.png").write_bytes(b"no picture at all" * 100_000)
    page = Page(report.write(folder))
    kinds = [(image["src"] or "").partition(";")[0] for image in page.all("img")]
    assert kinds == ["data:image/jpeg", "data:image/png"]  # views, and neighbours


def test_tables_have_headers(full: Page):
    assert full.all("table")
    assert {head["scope"] for head in full.all("th")} == {"row", "col"}


def test_the_page_loads_nothing(full: Page, tmp_path: Path):
    text = (tmp_path / "dilo-scenes-demo" / "report.html").read_text()
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in full.tags}
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"base64,[^\"]*", "", text))
    for _, attributes in full.tags:
        assert not {"href", "srcset", "action"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    (policy,) = [it for it in full.all("meta") if "http-equiv" in it]
    assert (policy["content"] or "").startswith("default-src 'none'")


HOSTILE = '"><script>alert(1)</script><img src=x onerror="x()">&amp;'


def test_hostile_names_are_escaped(tmp_path: Path):
    """Hostile names in settings, columns, figures, values, files and states."""
    folder = tmp_path / HOSTILE.replace("/", "|")
    helpers_report.full(folder)
    config = {"method_name": HOSTILE, "data": {"name": HOSTILE, "train": HOSTILE}, "size": HOSTILE}
    (folder / "config.yaml").write_text(json.dumps(config))
    figures = {HOSTILE: {HOSTILE: {HOSTILE: 0.5}}, "list": [HOSTILE], "about": HOSTILE}
    curve = {"curve": {HOSTILE: [1, 2], "x" + HOSTILE: [1, 2], "y" + HOSTILE: [2, 3]}}
    helpers_report.write(
        folder, patches=figures | curve, knn=HOSTILE, reliance=[{HOSTILE: HOSTILE}]
    )
    helpers_report.write(folder, status={"state": HOSTILE, "host": HOSTILE, "versions": HOSTILE})
    quoted = HOSTILE.replace('"', '""')
    (folder / "log.csv").write_text(f'step,epoch,"{quoted}"\n1,0.5,3\n2,1,4\n')
    with open(folder / "evaluations.jsonl", "a") as file:
        file.write(json.dumps({"step": 1, "epoch": 1.0, HOSTILE: 0.5}) + "\n")
    (folder / "views.png").rename(folder / f"{HOSTILE.replace('/', '|')}.png")
    page = Page(report.write(folder))
    assert not page.all("script")
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert HOSTILE in "".join(page.texts("h1")) and HOSTILE in "".join(page.texts("th"))
    assert len([it for it in page.charts if HOSTILE in it]) == 2


@pytest.mark.parametrize("left_out", ["config.yaml", "log.csv", "status.json", "evaluations.jsonl"])
def test_any_file_may_be_missing(tmp_path: Path, left_out: str):
    folder = helpers_report.full(tmp_path)
    (folder / left_out).unlink()
    page = Page(report.write(folder))
    assert "Patches" in page.texts("h2")
    assert ("Configuration" in page.texts("h2")) == (left_out != "config.yaml")


def test_a_run_that_has_just_begun(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(helpers_report.CONFIG.format(method="moco"))
    helpers_report.write(tmp_path, status={"state": "running", "step": 0, "steps": 9, "epoch": 0.0})
    page = Page(report.write(tmp_path))
    assert page.texts("h2") == ["Learning", "Configuration"]
    assert "Nothing is logged yet." in page.texts("section")
    assert not page.charts


@pytest.mark.parametrize("log", ["", "step,loss,epoch\n", "step,loss,epoch\n1,nan,0.1\n1,in"])
def test_a_log_with_nothing_to_draw(tmp_path: Path, log: str):
    (tmp_path / "log.csv").write_text(log)
    assert not Page(report.write(tmp_path)).charts


def test_an_unfinished_run_shows_its_progress(tmp_path: Path):
    helpers_report.logged(tmp_path, steps=45)
    (tmp_path / "config.yaml").write_text(helpers_report.CONFIG.format(method="dilo"))
    helpers_report.write(tmp_path, status={"state": "running", "steps": 300})
    told = Page(report.write(tmp_path)).texts("dl")
    assert "1.5 of 10" in told and "step 45 of 300" in told


def test_the_loaders_bottleneck_is_shown_with_its_curves(tmp_path: Path):
    sentence = "decoding sets the pace; what helps: data.cache=ram:53GB <for all>, or more cores"
    for loader in ({"advice": sentence}, {"advice": 3}, "none", None):
        helpers_report.write(tmp_path, status={"state": "running", "loader": loader})
        texts = Page(report.write(tmp_path)).texts("section")
        said = [text for text in texts if "Loader of rank 0" in text]
        whole = isinstance(loader, dict) and loader["advice"] == sentence
        assert said == ([f"Loader of rank 0: {sentence}."] if whole else [])


def test_damaged_files_are_reported(tmp_path: Path):
    folder = helpers_report.full(tmp_path)
    (folder / "patches.json").write_text('{"columns": {"cen')
    (folder / "config.yaml").write_text("method: [unclosed")
    (folder / "status.json").write_text("[]")
    page = Page(report.write(folder))
    assert "patches.json cannot be read" in page.texts("section")
    assert page.texts("h1") == [tmp_path.name]


def test_lines_that_cannot_be_read_are_skipped(tmp_path: Path, caplog):
    folder = helpers_report.full(tmp_path)
    lines = (folder / "log.csv").read_bytes().splitlines(keepends=True)
    lines[7:9] = [b"8,\xff\xfe,low\n", b"\x00" * 40 + b"\n"]
    (folder / "log.csv").write_bytes(b"".join(lines))
    with open(folder / "evaluations.jsonl", "a") as file:
        file.write('{knn}\n["knn"]\n{"step": "5", "knn": 0.1}\n{"step": 6, "knn": "high"}\n')
    page = Page(report.write(folder))
    told = dict(itertools.pairwise(page.texts("dl")))
    assert (told["kNN"], told["Loss"]) == ("70.0%", "4.151")
    assert "log.csv: skipped 2 lines" in caplog.text
    assert "evaluations.jsonl: skipped 3 lines" in caplog.text


def test_invalid_records(tmp_path: Path, caplog):
    folder = helpers_report.full(tmp_path)
    (folder / "log.csv").write_bytes(b"\xff\x00\n1\n")
    (folder / "evaluations.jsonl").unlink()
    (folder / "evaluations.jsonl").mkdir()
    assert "Nothing is logged yet." in Page(report.write(folder)).texts("p")
    assert "evaluations.jsonl (it is a folder, not a file)" in caplog.text


def test_many_evaluations_are_collapsed(tmp_path: Path):
    helpers_report.logged(tmp_path, steps=1)
    with open(tmp_path / "evaluations.jsonl", "w") as file:
        for step in range(100):
            file.write(json.dumps({"step": step, "epoch": step / 10, "knn": 0.5}) + "\n")
    page = Page(report.write(tmp_path))
    assert any("100 of kNN" in title for title in page.texts("summary"))


def test_metrics_besides_knn_have_curves_and_a_collapse_a_card(tmp_path: Path):
    figures = {"linear_online": 0.5, "rankme_h": 40.5, "spread_h": 0.6, "collapsed_h": 0}
    rows = [{"step": step, "epoch": step / 30, "knn": 0.5, **figures} for step in (0, 150, 300)]
    folder = helpers_report.full(tmp_path)
    text = "".join(f"{json.dumps(row)}\n" for row in [*rows, {"step": 300, "rankme_h": 9.0}])
    (folder / "evaluations.jsonl").write_text(text)
    page = Page(report.write(folder))
    for title in (
        "Online linear classifier on h. 50",
        "RankMe. h: 40.5",
        "Spread of directions. h",
    ):
        (curve,) = [it for it in page.charts if it.startswith(title)]
        assert "at epoch 10; between" in curve
    assert "Collapse" not in page.texts("dt") and "During training" in page.texts("caption")
    assert {"RankMe h", "40.5", "50.0%"} <= {*page.texts("th"), *page.texts("td")}
    fallen = rows[-1] | {"rankme_h": 1.02, "spread_h": 0.001, "collapsed_h": 1}
    (folder / "evaluations.jsonl").write_text(f"{json.dumps(rows[0])}\n{json.dumps(fallen)}\n")
    page = Page(report.write(folder))
    assert "Collapse" in page.texts("dt")
    assert "h has collapsed: RankMe 1.0, spread 0.001" in page.texts("dd")


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path):
    with pytest.raises(MillError, match="is not a run's folder"):
        report.write(tmp_path)
    with pytest.raises(MillError, match="is not a run's folder"):
        report.write(tmp_path / "nowhere")


def test_a_report_that_cannot_be_written(tmp_path: Path):
    folder = helpers_report.full(tmp_path)
    (folder / "report.html").mkdir()
    with pytest.raises(MillError, match=r"cannot write .*report\.html"):
        report.write(folder)


def test_the_command_writes_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command.main([str(helpers_report.full(tmp_path))])
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").is_file()


def test_a_missing_setting_is_none(tmp_path: Path):
    run = run_data.read(helpers_report.full(tmp_path))
    assert run.setting("train.batch_size") == 128
    assert run.setting("train.batch_size.more") is None and run.setting("nothing") is None
