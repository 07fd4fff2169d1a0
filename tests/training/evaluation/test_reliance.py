"""Test sets of evaluate=reliance, and the gaps between their accuracies."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import helpers_trained
import pytest
import torch
from helpers_trained import tiny  # noqa: F401  (a fixture)

from patchmill import loaders
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import CopyPaste, Views
from patchmill.loaders.sources import open_source
from patchmill.training import data
from patchmill.training.evaluation import linear, online, reliance
from patchmill.training.evaluation.reliance import ALONE, GREY, HUE, SAME, SWAPPED, Settings
from patchmill.training.evaluation.settings import Online
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


def test_grey_images_and_random_hues_are_of_the_same_scenes(tmp_path: Path):
    config = helpers_trained.settings(tmp_path, evaluate__view="eval(size=32, short_side=32)")
    found, shown = reliance.variants(config), {}
    for name in (SAME, GREY, HUE):
        test_set = found[name]
        assert test_set.data == found[SAME].data
        recipe = replace(test_set.recipe, views=tuple(map(plain, test_set.recipe.views)))
        source = open_source(test_set.data)
        loader = loaders.build(source, recipe, 6, seed=0, device="cpu", drop_last=False)
        with closing(loader):
            (batch,) = loader
        shown[name] = batch.views["image"][batch.ids.argsort(), 0]
    channels = shown[GREY].unbind(1)
    assert all(torch.allclose(channels[0], channel, atol=1e-3) for channel in channels[1:])
    grey = torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(
        channels[0], torch.einsum("bchw,c->bhw", shown[SAME], grey), atol=0.01, rtol=0
    )
    # Rotating the hue keeps the largest and the smallest of red, green and blue
    for most in (torch.amax, torch.amin):
        torch.testing.assert_close(most(shown[HUE], 1), most(shown[SAME], 1), atol=0.02, rtol=0)
    changed = (shown[HUE] - shown[SAME]).abs().mean((1, 2, 3))
    assert (changed > 0.01).sum() > 3 and len(set(changed.tolist())) == 6


def plain(view: Views) -> Views:
    return replace(view, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def test_other_data_is_cut_out_by_its_masks(tmp_path: Path):
    config = helpers_trained.settings(tmp_path)
    config.data.test = "photos"
    found = reliance.variants(config)
    assert {test_set.data for test_set in found.values()} == {"photos"}
    pastes = {name: test_set.recipe.views[0].paste for name, test_set in found.items()}
    assert pastes == {
        SAME: None,
        SWAPPED: CopyPaste(1.0, "images", 0.0),
        ALONE: CopyPaste(1.0, "grey", 0.0),
        GREY: None,
        HUE: None,
    }


def test_missing_test_images_are_an_error(tmp_path: Path):
    config = helpers_trained.settings(tmp_path)
    config.data.test = None
    with pytest.raises(MillError, match=r"has no test images: name some with data.test=DIR"):
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
    assert found.columns == ["test images", "knn", "linear"]
    for metric, scores in found.data["scores"].items():
        assert list(scores) == [SAME, SWAPPED, ALONE, GREY, HUE]
        assert list(found.data["gaps"][metric]) == [SWAPPED, ALONE, GREY, HUE]
        for name, gap in found.data["gaps"][metric].items():
            assert gap == scores[SAME] - scores[name]
            assert found.scalars[f"gap_{name.replace(' ', '_')}_{metric}"] == gap
    assert len(found.rows) == 9
    assert "untrained" not in found.data


@pytest.mark.usefixtures("tiny")
def test_scores_are_those_of_the_other_evaluations(tmp_path: Path):
    """kNN and the closed form on the tests as they are, of both networks."""
    run = helpers_trained.run(tmp_path)
    found = reliance.evaluate(run, Settings(probe="ridge", untrained=True))
    figures = online.evaluate_online(run, Online()).data["figures"]
    for key, when in (("scores", online.AFTER), ("untrained", online.BEFORE)):
        scores = found.data[key]
        assert scores["knn"][SAME] == figures[when]["knn"]
        assert scores["ridge"][SAME] == figures[when]["linear_online"]
    assert found.columns == ["test images", "knn", "ridge", "knn, untrained", "ridge, untrained"]
    assert {len(row) for row in found.rows} == {5}
