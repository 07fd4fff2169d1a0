"""evaluate=segment from the command line: table, files, picture, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import helpers_segment
import helpers_trained
import numpy as np
import pytest
from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.training import evaluate
from patchmill.training.evaluation import trained_run
from patchmill.training.evaluation.segment import picture
from patchmill.training.evaluation.segment.budget import PAPER
from patchmill.training.evaluation.segment.command import evaluate as segment
from patchmill.training.evaluation.segment.settings import Settings, resolve
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import records

SHORT = ["iterations=3", "batch=2", "size=32", "channels=8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = {"model.name": "vit_tiny_patch16_224", "model.depth": "2", "model.patch": "8"}
    config = helpers_trained.settings(tmp_path_factory.mktemp("runs"), **overrides)
    return helpers_trained.write(config)


def run(folder: Path, *argv: str) -> dict:
    evaluate.main([f"run={folder}", "evaluate=segment", *argv])
    return json.loads((folder / "segment.json").read_text())


@pytest.mark.parametrize("head", ["fpn", "linear", "knn"])
def test_each_head_writes_two_rows(head: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    found = run(folder, f"head={head}", *SHORT)
    text = capsys.readouterr().out
    assert "untrained" in text and "mIoU" in text
    assert list(found["backbones"]) == ["trained", "untrained"]
    assert found["backbones"]["trained"] != found["backbones"]["untrained"]
    for scores in found["backbones"].values():
        assert list(scores) == ["aAcc", "mIoU", "mAcc"]
        assert all(0 <= value <= 1 for value in scores.values())
    assert found["encoder"] == "student" and found["frozen"] == (head != "fpn")
    assert len(found["per_class"]) == 11 and found["test_images"] == 6
    last = records.evaluations(folder)[-1]
    assert last[f"segment_{head}_mIoU"] == found["backbones"]["trained"]["mIoU"]
    assert last[f"segment_{head}_mIoU_untrained"] == found["backbones"]["untrained"]["mIoU"]
    report = (folder / "report.html").read_text()
    assert "Segmentation" in report and "predictions of each network" in report


def test_the_same_seed_gives_the_same_figures(folder: Path):
    argv = [*SHORT, "freeze=true", "untrained=false"]
    first, second, other = run(folder, *argv), run(folder, *argv), run(folder, *argv, "seed=1")
    assert first == second and first["backbones"] != other["backbones"]
    assert list(first["backbones"]) == ["trained"] and first["frozen"]
    assert "segment_fpn_frozen_mIoU" in records.evaluations(folder)[-1]


def test_folders_of_other_sizes_are_segmented(folder: Path, tmp_path: Path):
    root = helpers_segment.write_ade20k(tmp_path, count=2)
    found = run(folder, f"root={root}", "size=[16,24]", *SHORT[:2], *SHORT[3:])
    assert found["size"] == [16, 24] and len(found["per_class"]) == 150
    sheet = np.array(Image.open(folder / picture.FILE))
    assert sheet.shape[1] == 4 * (picture.SIDE + picture.GAP) - picture.GAP


def test_the_picture_shows_images_labels_and_predictions():
    data = helpers_segment.Coloured(9)
    indices = picture.choose(data)
    assert indices[0] == 0 and indices[-1] == 8 and len(set(indices)) == picture.IMAGES
    masks = {index: data.read(index).mask for index in indices}
    sheet = np.array(picture.draw(data, {"trained": masks}))
    step = picture.SIDE + picture.GAP
    tile = sheet[picture.HEAD :, step : step + picture.SIDE][: picture.SIDE]
    colours = picture.palette(data.classes)
    assert np.array_equal(tile[::4, ::4], colours[data.read(0).mask.numpy()])
    assert np.array_equal(tile, sheet[picture.HEAD :, 2 * step :][: picture.SIDE, : picture.SIDE])
    assert (
        len({tuple(colour) for colour in picture.palette(list(map(str, range(150))))[:150]}) == 150
    )


def test_the_papers_budget_and_what_replaces_it():
    from patchmill.training.config import compose

    config = compose.compose(["method=moco", "data=scenes", "scale=paper", "size=224"])
    assert resolve(Settings(), config) == PAPER
    assert round(PAPER.warmup * PAPER.iterations) == 1500
    assert resolve(Settings(head="linear"), config).lr == 1e-3
    given = resolve(Settings(size=(64, 96), warmup=10, iterations=100, lr=1.0), config)
    assert (given.size, given.warmup, given.iterations, given.lr) == ((64, 96), 0.1, 100, 1.0)
    assert given.batch == 16
    small = compose.compose(["method=moco", "data=scenes", "scale=demo", "size=32"])
    assert resolve(Settings(), small).size == (64, 64)
    assert resolve(Settings(protocol="paper"), small) == PAPER
    with pytest.raises(MillError, match=r"warmup=9 is not less than the 9 iterations"):
        resolve(Settings(warmup=9, iterations=9), config)


MISTAKES = {
    "size=4": r"size=4 is less than the stride of the backbone's last map, 8 pixels",
    "head=fpm": r"head must be fpn \| linear \| knn, not 'fpm'",
    "data.test=none": r"there are no test images: name some with root=DIR",
    "root=nowhere": r"root=nowhere has no folder images",
    "evaluate.encoder=teacher": r"evaluate.encoder=teacher: BagSSL has no teacher",
    "classes=300": r"classes must be a whole number from 1 to 255",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_mistakes_are_one_sentence(word: str, folder: Path):
    with pytest.raises(MillError, match=MISTAKES[word]):
        run(folder, word)


def test_several_ranks_are_an_error(folder: Path):
    config = trained_run.load_config(folder)
    loaded = trained_run.load(folder, config, World())
    several = trained_run.TrainedRun(
        folder, config, World(size=2), loaded.method, None, loaded.step, loaded.epoch
    )
    with pytest.raises(MillError, match="evaluate=segment runs on one rank"):
        segment(several, Settings())


def test_a_backbone_without_maps_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from helpers_methods import Tiny

    from patchmill.training.nets import backbones

    monkeypatch.setattr(backbones, "build", lambda settings, size, **_: Tiny())
    folder = helpers_trained.write(helpers_trained.settings(tmp_path))
    with pytest.raises(MillError, match="Tiny has no feature maps"):
        run(folder, *SHORT)
