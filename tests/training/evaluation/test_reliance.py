"""Test sets of evaluate=reliance, and the gaps between their accuracies."""

from __future__ import annotations

from pathlib import Path

import helpers_trained
import pytest
import torch
from helpers_trained import tiny  # noqa: F401  (a fixture)

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import CopyPaste
from patchmill.loaders.sources import open_source
from patchmill.training import data
from patchmill.training.evaluation import linear, reliance
from patchmill.training.evaluation.reliance import ALONE, SAME, SWAPPED, Settings
from patchmill.training.ranks.distributed import World

BIASED = "scenes(count=14, size=32, background_bias=0.9)"


def test_scenes_have_the_backgrounds_of_training_or_others(tmp_path: Path):
    found = reliance.variants(helpers_trained.settings(tmp_path, data__train=BIASED))
    same, swapped = (open_source(found[name].data) for name in (SAME, SWAPPED))
    assert same.name == "scenes(count=6, seed=1, background_bias=0.9, size=32)"
    assert swapped.name == "scenes(count=6, seed=1, swap_backgrounds=True, size=32)"
    assert found[ALONE].data == found[SAME].data
    assert found[SAME].recipe.views[0].paste is None
    for index in range(6):  # the same things at the same places
        assert (same.mask(index) == swapped.mask(index)).all()
        assert same.read(index) != swapped.read(index)
    assert same.labels.tolist() == swapped.labels.tolist()


def test_foregrounds_are_pasted_on_the_same_grey_in_every_image(tmp_path: Path):
    config = helpers_trained.settings(tmp_path, evaluate__view="eval(size=32, short_side=32)")
    recipe = reliance.variants(config)[ALONE].recipe
    source = open_source(config.data.test)
    for batch in data.open_evaluation(config, World(), "test", recipe):
        assert batch.pasted["image"].all()
        for image, view in zip(batch.ids.tolist(), batch.views["image"][:, 0], strict=True):
            away = torch.from_numpy(source.mask(image)) == 0
            pixels = view[:, away]  # normalised, but constant by channel
            assert (pixels.amax(1) - pixels.amin(1)).max() < 1e-5


def test_other_data_is_cut_out_by_its_masks(tmp_path: Path):
    config = helpers_trained.settings(tmp_path)
    config.data.test = "photos"
    found = reliance.variants(config)
    assert {test_set.data for test_set in found.values()} == {"photos"}
    pastes = [found[name].recipe.views[0].paste for name in (SAME, SWAPPED, ALONE)]
    assert pastes == [None, CopyPaste(1.0, "images", 0.0), CopyPaste(1.0, "grey", 0.0)]


def test_missing_test_images_are_an_error(tmp_path: Path):
    config = helpers_trained.settings(tmp_path)
    config.data.test = None
    with pytest.raises(MillError, match=r"has no images to test on: name some, as data.test=DIR"):
        reliance.variants(config)


@pytest.mark.parametrize("place", ["scenes", "scenes:9", "scenes(count=9, size=32)"])
def test_every_spelling_of_scenes_is_recognised(place: str):
    made = reliance.scene_settings(place)
    assert made is not None and made.get("count", 9) == 9
    assert reliance.scene_settings("scenes_of_mine") is None


@pytest.mark.usefixtures("tiny")
def test_gaps_are_differences_of_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    short = linear.PROTOCOLS["vicreg"]._replace(epochs=2)
    monkeypatch.setitem(linear.PROTOCOLS, "vicreg", short)
    run = helpers_trained.run(tmp_path, data__train=BIASED)
    found = reliance.evaluate(run, Settings())
    assert found.columns == ["backgrounds", "knn", "linear"]
    for metric, scores in found.data["scores"].items():
        for name, gap in found.data["gaps"][metric].items():
            assert gap == scores[SAME] - scores[name]
            assert found.scalars[f"gap_{name.replace(' ', '_')}_{metric}"] == gap
    assert len(found.rows) == 5
