"""DiLo's experiment: equal settings except views, masks of other images, mixed test images."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchmill.benchmarks.lib import untrained
from patchmill.benchmarks.lib.papers import Budget, Experiment
from patchmill.benchmarks.papers import dilo
from patchmill.loaders.copypaste import masks
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.sources import open_source
from patchmill.training.config import compose

SCENES = "scenes(count=40,seed=3,background_bias=0.9,size=32)"
TINY = ("data=biased_scenes", "scale=demo", f"data.train={SCENES}", "size=32")


@pytest.mark.parametrize("budget", dilo.BUDGETS)
def test_dilo_and_moco_differ_only_in_their_views(budget: str, tmp_path: Path) -> None:
    overrides = list(dilo.BUDGETS[budget].overrides)
    if "data=imagenet" in overrides:
        overrides.append(f"data.root={tmp_path}")
        for split in ("train", "val"):
            (tmp_path / split).mkdir()
    rows = dilo.trainings(dilo.BUDGETS[budget], 0)
    moco, *others = (compose.plain(compose.compose([*overrides, *row])) for row in rows.values())
    views = moco["method"]["views"].replace("moco_v2", "dilo").replace("moco_v1", "dilo_v1")
    assert all(config["method"]["views"] == views for config in others)
    for config in (moco, *others):
        del (
            config["method_name"],
            config["name"],
            config["method"]["views"],
            config["data"]["masks"],
        )
    assert others and all(config == moco for config in others)


def test_a_control_pastes_by_masks_of_other_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source: Any = open_source(SCENES)
    dilo.write_shuffled(source, tmp_path / "random.masks")
    with caplog.at_level(logging.WARNING):
        shuffled = masks.open_masks(source, tmp_path / "random.masks")
    assert shuffled is not None and not caplog.records
    own = [source.mask(index).tobytes() for index in range(len(source))]
    found = [shuffled.lookup(index) for index in range(len(source))]
    planes = [look.plane.tobytes() for look in found if look.plane is not None]
    assert sorted(planes) == sorted(own)
    assert all(plane != mask for plane, mask in zip(planes, own, strict=True))
    assert {look.state for look in found} == {masks.USED}
    dilo.write_shuffled(source, tmp_path / "shifted.masks", anywhere=True)
    shifted = masks.open_masks(source, tmp_path / "shifted.masks")
    assert shifted is not None
    shares = [shifted.foreground(index) for index in range(len(source))]
    assert shares == [pytest.approx(look.foreground) for look in found]
    moved = [shifted.lookup(index).plane for index in range(len(source))]
    changed = [(a != b.plane).any() for a, b in zip(moved, found, strict=True)]
    assert sum(changed) > 35


@pytest.mark.parametrize("same", [True, False])
def test_foregrounds_are_pasted_on_backgrounds_of_a_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    plain = [[np.full((32, 32, 3), 20 * kind, np.uint8)] for kind in range(10)]
    monkeypatch.setattr(dilo, "painted_backgrounds", lambda test: plain)
    dilo.write_mixed(SCENES, same, tmp_path / "mixed.zip")
    source: Any = open_source(SCENES)
    with zipfile.ZipFile(tmp_path / "mixed.zip") as file:
        images = {name: decode(file.read(name)) for name in file.namelist()}
    assert len(images) == len(source)
    kinds = []
    for index, label in enumerate(source.labels.tolist()):
        image = images[f"{source.classes[label]}/{index:06}.png"]
        foreground = source.mask(index) > 0
        assert (image[foreground] == decode(source.read(index))[foreground]).all()
        (level,) = np.unique(image[~foreground])
        kinds.append(level // 20)
    if same:
        assert kinds == source.labels.tolist()
    else:
        assert len(set(kinds)) > 5 and kinds != source.labels.tolist()


def test_backgrounds_are_painted_without_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dilo, "BACKGROUNDS", 30)
    painted = []
    make = dilo.make_scene
    monkeypatch.setattr(
        dilo, "make_scene", lambda *arguments: painted.append(make(*arguments)) or painted[-1]
    )
    behind = dilo.painted_backgrounds(SCENES)
    assert sum(map(len, behind)) == 30 and sum(map(bool, behind)) > 5
    assert {image.shape for pool in behind for image in pool} == {(32, 32, 3)}
    assert not any(scene.object_map.any() for scene in painted)


def test_a_network_is_scored_on_every_kind_of_test_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dilo, "BACKGROUNDS", 60)
    experiment = Experiment(dilo.PAPER, Budget(TINY, tests=30), tmp_path)
    like = tmp_path / "like"
    like.mkdir()
    compose.save(compose.compose([*TINY, "method=moco"]), like)
    untrained.store(tmp_path / "untrained-0", like)
    found = dilo.figures(experiment, tmp_path / "untrained-0")
    assert set(found) == set(dilo.COLUMNS) - {"masks_f"}
    assert found["gap_knn"] == pytest.approx(found["mixed_same_knn"] - found["mixed_rand_knn"])
    assert all(0 <= found[f"{column}_linear"] <= 1 for column in ("same", "swapped", "alone"))
    monkeypatch.setattr(dilo, "_figures", lambda *_: pytest.fail("it was scored before"))
    assert dilo.figures(experiment, tmp_path / "untrained-0") == found
