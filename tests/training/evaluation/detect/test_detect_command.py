"""python training/evaluate.py evaluate=detect: the whole command on tiny scenes, and mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import helpers_detection as helpers
import helpers_trained
import pytest
import torch
from helpers_methods import Tiny
from PIL import Image
from timm.layers import DropPath

from patchmill.loaders.common.errors import MillError
from patchmill.training import evaluate
from patchmill.training.evaluation.detect import annotated
from patchmill.training.evaluation.detect import evaluation as detection
from patchmill.training.evaluation.detect.settings import Settings
from patchmill.training.evaluation.trained_run import TrainedRun
from patchmill.training.nets import backbones
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import records

pytest.importorskip("pycocotools")

RESNET = {"model__name": "resnet10t", "model__stem": "imagenet"}
OVERRIDES = [
    f"{key}={value}".replace("(", "[").replace(",)", "]").replace(" ", "")
    for key, value in helpers.TINY.items()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    return helpers_trained.write(helpers_trained.settings(out, **RESNET))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return helpers_trained.run(tmp_path_factory.mktemp("runs"), **RESNET)


def test_the_whole_command(folder: Path, capsys: pytest.CaptureFixture[str]):
    evaluate.main([f"run={folder}", "evaluate=detect", "picture=2", *OVERRIDES])
    result = json.loads((folder / "detect.json").read_text())
    assert (result["protocol"], result["head"]) == ("demo", "mask")
    assert result["train"]["data"].startswith("scenes(count=14") and result["train"]["images"] == 14
    assert result["test"]["images"] == 6 and result["budget"]["iterations"] == 2
    networks = result["networks"]
    assert list(networks) == ["trained", "untrained"]
    for network in networks.values():
        for kind in ("box", "mask"):
            assert all(0 <= network[kind][name] <= 1 for name in ("ap", "ap50", "ap75"))
    assert result["loss"]["trained"] != result["loss"]["untrained"]
    line = records.evaluations(folder)[-1]
    assert line["detect_trained_box_ap"] == networks["trained"]["box"]["ap"]
    assert line["detect_untrained_mask_ap50"] == networks["untrained"]["mask"]["ap50"]
    picture = Image.open(folder / "detect.png")
    assert picture.height == 24 + 2 * 186 - 6 and picture.width == 3 * 186 - 6
    assert "box AP50" in capsys.readouterr().out
    report = (folder / "report.html").read_text()
    assert "Test images, their objects, and the detections of each network" in report
    evaluate.main([f"run={folder}", "evaluate=detect", "picture=0", "untrained=false", *OVERRIDES])
    again = json.loads((folder / "detect.json").read_text())
    assert again["networks"] == {"trained": networks["trained"]}
    assert again["loss"]["trained"] == result["loss"]["trained"]


def test_scenes_of_the_run_are_the_default(run: TrainedRun):
    images, tests = annotated.open_pair(run.config, Settings(test="scenes(count=2, size=32)"))
    assert (len(images), len(tests)) == (14, 2)


def test_a_teachers_backbone_is_copied_and_trained(tmp_path: Path):
    overrides = {"method__objective": "byol", "evaluate__encoder": "teacher", **RESNET}
    run = helpers_trained.run(tmp_path, **overrides)
    task = detection._prepare(run, Settings(drop_path=0.5, **helpers.TINY))
    copied = detection._detector(task, run.method).backbone.backbone
    assert all(param.requires_grad for param in copied.parameters())
    assert not any(param.requires_grad for param in run.backbone.parameters())
    own = run.backbone.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in copied.state_dict().items())
    rates = [part.drop_prob for part in copied.modules() if isinstance(part, DropPath)]
    assert max(rates) == 0.5


def test_a_vit_and_files_of_coco(tmp_path: Path):
    overrides = {"model__name": "vit_tiny_patch16_224", "model__depth": 2}
    run = helpers_trained.run(tmp_path, **overrides)
    boxes = [
        helpers.box(3, 5, [2, 2, 8, 8], segmentation=helpers.SQUARE),
        helpers.box(8, 2, [2, 2, 8, 8], segmentation=helpers.SQUARE),
    ]
    file = str(helpers.coco(tmp_path / "coco", boxes))
    settings = Settings(train=file, test=file, untrained=False, picture=0, **helpers.TINY)
    result = detection.evaluate(run, settings)
    assert result.data["protocol"] == "coco" and list(result.data["networks"]) == ["trained"]
    assert result.data["budget"]["drop_path"] == 0.05 and result.data["picture"] is None
    assert result.data["train"]["objects"] == 2 and "Mask R-CNN" in result.about


def test_boxes_alone_train_a_faster_rcnn(run: TrainedRun, tmp_path: Path):
    file = str(
        helpers.voc(tmp_path, {"1": [("dog", 1, 2, 9, 8, 0)], "2": [("dog", 1, 2, 9, 8, 1)]})
    )
    settings = Settings(train=file, test=file, untrained=False, freeze=True, **helpers.TINY)
    before = {key: value.clone() for key, value in run.backbone.state_dict().items()}
    result = detection.evaluate(run, settings)
    assert result.columns == ["backbone", "box AP", "box AP50", "box AP75"]
    assert result.data["protocol"] == "moco_voc" and result.data["head"] == "faster"
    after = run.backbone.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "the run is left alone"
    with pytest.raises(
        MillError, match=r"head=mask needs a mask of each object.*has objects without"
    ):
        detection.evaluate(run, replace(settings, head="mask"))


def test_what_cannot_be_evaluated(run: TrainedRun, tmp_path: Path):
    with pytest.raises(MillError, match="runs on one rank: start it without torchrun"):
        detection.evaluate(replace(run, world=World(0, 2)), Settings())
    with pytest.raises(MillError, match=r"needs images with boxes: name them with test=FILE\.json"):
        detection.evaluate(run, Settings(train="boxes.json"))
    file = str(helpers.voc(tmp_path, {"1": [("dog", 1, 2, 9, 8, 0)]}))
    with pytest.raises(MillError, match="has objects of the class 'dog', which scenes"):
        detection.evaluate(run, Settings(train="scenes(count=2, size=32)", test=file))
    other = replace(run.config, data=replace(run.config.data, train="photos"))
    with pytest.raises(
        MillError, match=r"needs images with boxes: name them with train=FILE\.json"
    ):
        detection.evaluate(replace(run, config=other), Settings())


def test_a_backbone_without_feature_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backbones, "build", lambda settings, size, **_: Tiny())
    run = helpers_trained.run(tmp_path)
    with pytest.raises(MillError, match="Tiny has no feature maps"):
        detection.evaluate(run, Settings(**helpers.TINY))
