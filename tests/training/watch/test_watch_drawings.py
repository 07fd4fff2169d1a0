"""Views of a run's batches, drawn again as training has drawn them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import helpers_report
import helpers_runs
import numpy as np
import pytest
from helpers_watch import ask, serving
from PIL import Image

from patchmill import loaders
from patchmill.training.config import compose
from patchmill.training.watch.drawings import Drawings, Subject
from patchmill.training.watch.routes import Site
from patchmill.training.watch.shelf import Shelf
from patchmill.training.watch.thumbnails import decode_part


def a_run(folder: Path, step: int = 7, steps: int = 15, **overrides: str) -> Shelf:
    config = helpers_runs.config(folder, **overrides)
    (folder / "run").mkdir(exist_ok=True)
    compose.save(config, folder / "run")
    helpers_report.write(folder / "run", status={"state": "running", "step": step, "steps": steps})
    return Shelf(folder)


def test_a_step_shows_the_batch_of_that_step(tmp_path: Path):
    shelf = a_run(tmp_path)
    config = compose.load(tmp_path / "run")
    loader = loaders.build(config.data.train, config.method.views, 8, seed=config.seed)
    batches = [list(loader), list(loader)]
    drawings = Drawings()
    for step in (1, 5, 7):
        epoch, index = divmod(step - 1, helpers_runs.EPOCH)
        batch = batches[epoch][index]
        for first in (0, 6):
            drawn = drawings.of_run(shelf.runs()["run"], step, first)
            assert (drawn["step"], drawn["epoch"], drawn["first"]) == (step, epoch, first)
            shown = slice(first, first + 4)
            assert [sample["id"] for sample in drawn["samples"]] == batch.ids[shown].tolist()
            (geometry,) = batch.geometry.values()
            boxes = [[view["box"] for view in sample["views"]] for sample in drawn["samples"]]
            np.testing.assert_allclose(boxes, geometry.box[shown], atol=0.01)
            flips = [[view["flip"] for view in sample["views"]] for sample in drawn["samples"]]
            assert flips == geometry.flip[shown].tolist()
    newest = drawings.of_run(shelf.runs()["run"], None, 0)
    assert newest["step"] == 7 and newest is not drawn
    assert drawings.of_run(shelf.runs()["run"], 10**6, 10**6)["step"] == 15
    for sample in newest["samples"]:
        for uri in (sample["image"], *(view["image"] for view in sample["views"])):
            assert uri.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))


def test_views_of_a_recipe_are_drawn_anew_on_request(tmp_path: Path):
    subject = Subject("scenes(count=9, size=48)", "gtsa(global_size=32, local_size=16)")
    with serving(Site(subject=subject)) as server:
        one, other = (json.loads(ask(server, f"/views?epoch={epoch}")[2]) for epoch in (0, 1))
        assert [group["name"] for group in one["groups"]] and len(one["samples"]) == 4
        assert one["samples"] != other["samples"]
        turned = [view["turns"] for sample in one["samples"] for view in sample["views"]]
        assert any(turned)
        rest = json.loads(ask(server, "/views?epoch=0&first=8")[2])
        assert len(rest["samples"]) == 1
        assert ask(server, "/picture?run=.&name=views.png")[0] == 404


def test_a_run_of_gtsa_says_how_regions_are_cut(tmp_path: Path):
    shelf = a_run(tmp_path, data__train="scenes(count=40, size=32)")
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "moco" in text
    other = compose.compose(
        ["method=gtsa", "data=scenes", "scale=demo", "data.train=scenes(count=9, size=32)"]
    )
    compose.save(other, tmp_path / "run")
    drawn = Drawings().of_run(shelf.runs()["run"], 1, 0)
    assert drawn["bins"] == list(other.method.bins) and len(drawn["groups"]) == 2


def test_masks_and_pasted_images_come_with_views_that_paste(tmp_path: Path):
    drawn = Drawings().of_data(Subject("scenes(count=6, size=48)", "dilo(size=32)"), 0, 0)
    assert all("mask" in sample for sample in drawn["samples"])
    assert any(sample["composite"] for sample in drawn["samples"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"train": "nowhere/at/all"}, "there is no folder"),
        ({"train": "https://somewhere.example/a-{0..9}.tar"}, "the page does not download data"),
        ({"train": "pipe:touch /tmp/owned.tar"}, "the page does not download data"),
        ({"train": "s3://bucket/train"}, "the page does not download data"),
        (None, "is not valid YAML"),
    ],
)
def test_views_that_cannot_be_drawn_are_a_sentence(tmp_path: Path, change, problem: str):
    a_run(tmp_path)
    path = tmp_path / "run" / "config.yaml"
    if change is None:
        path.write_text("a: [")
    else:
        path.write_text(
            path.read_text()
            .replace("'scenes(count=44, size=32)'", f"'{change['train']}'")
            .replace("scenes(count=44, size=32)", change["train"])
        )
    with serving(tmp_path) as server:
        status, _, body = ask(server, "/views?run=run")
        assert status == 200 and problem in json.loads(body)["problem"]
        path.unlink()
        assert "no config.yaml yet" in json.loads(ask(server, "/views?run=run")[2])["problem"]


def jpeg(side: int = 200) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def test_bad_images_are_shown_as_far_as_they_can_be_decoded(tmp_path: Path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.jpg").write_bytes(jpeg())
    (images / "b.jpg").write_bytes(jpeg()[:20_000])
    (images / "c.jpg").write_bytes(b"no image at all")
    a_run(tmp_path, data__train=str(images), train__batch_size="1", method__queue="1")
    entries = [
        {"id": id, "where": str(images / f"{name}.jpg"), "reason": "cut"}
        for id, name in ((1, "b"), (2, "c"), (77, "d"))
    ]
    (tmp_path / "run" / "ledger-rank0.jsonl").write_text(
        "".join(json.dumps(e) + "\n" for e in entries)
    )
    with serving(tmp_path) as server:
        _, headers, body = ask(server, "/thumbnail?run=run&id=1")
        assert headers["Content-Type"] == "image/jpeg"
        assert max(Image.open(io.BytesIO(body)).size) <= 200
        for id in ("2", "77", "0", "x", "-1", "9" * 30):  # 0 is in no ledger
            assert ask(server, f"/thumbnail?run=run&id={id}")[1]["Content-Type"] == "image/svg+xml"


@pytest.mark.parametrize("data", [b"", b"GIF89a", jpeg()[:50], b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_nothing_of_some_can_be_decoded(data: bytes):
    assert decode_part(data) is None
