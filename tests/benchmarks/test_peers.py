"""Every peer that is installed makes the views it is asked for; others are skipped, saying why."""

from __future__ import annotations

import multiprocessing
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from patchmill.benchmarks import peers
from patchmill.kernels.views import reference
from patchmill.kernels.views.rows import GREY_LAST, NO_JITTER, ROW, Target
from patchmill.loaders.errors import MillError
from patchmill.loaders.recipe import Blur, Colour, Crop, Grid, Recipe, Shift, Views, Window

# Numba stumbles over its own finalisers when FFCV's compiled pipelines are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

JITTER = Colour(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
DINO = Recipe(
    (
        Views(
            "global",
            count=2,
            size=32,
            crop=Crop(scale=(0.4, 1.0)),
            colour=JITTER,
            blur=Blur(p=(1.0, 0.1)),
            solarise=(0.0, 0.2),
            interpolation="bicubic",
        ),
        Views("local", count=1, size=16, crop=Crop(scale=(0.05, 0.4)), colour=JITTER, blur=Blur()),
    ),
    name="small dino",
)
SIZES = [32, 32, 16]


# FFCV compiles every view's pipeline, which takes it many seconds.
@pytest.fixture(params=["torchvision", "dali", pytest.param("ffcv", marks=pytest.mark.slow)])
def peer(request) -> peers.Peer:
    found = peers.load(request.param)
    if reason := found.available():
        pytest.skip(reason)
    return found


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Five square photos of soft shading, so that a JPEG keeps them well."""
    paths = []
    y, x = np.mgrid[:90, :90] / 90
    for number in range(5):
        waves = [np.sin(5 * y + number + c) * np.cos(4 * x + c) for c in range(3)]
        photo = (127.5 + 110 * np.stack(waves, -1)).astype(np.uint8)
        paths.append(str(tmp_path / f"{number}.jpg"))
        Image.fromarray(photo).save(paths[-1], quality=95)
    return paths


def views_of(batch: Any) -> list[Tensor]:
    return list(batch.values()) if isinstance(batch, dict) else list(batch)


def test_views_are_float32_normalised_and_endless(peer, photos):
    with closing(peer.open(photos, DINO, workers=1, batch_size=4)) as batches:
        for _ in range(4):  # more than there are photos
            views = views_of(next(batches))
            assert [tuple(view.shape) for view in views] == [(4, 3, s, s) for s in SIZES]
            assert all(view.dtype == torch.float32 for view in views)
            assert all(0.3 < view.std() < 3 and -3 < view.min() < view.max() < 3 for view in views)
    assert not multiprocessing.active_children()


def test_views_are_those_of_the_reference(peer, photos):
    """With nothing left to chance; FFCV does less, so it is held to the plain resize."""
    plain = peer.NOTE.startswith("does less")
    group = Views("view", count=1, size=40, crop=Crop((1.0, 1.0), (1.0, 1.0)), flip=1.0)
    if not plain:
        grey = Colour(p=0.0, grey=1.0)
        group = replace(group, colour=grey, blur=Blur(p=1.0, sigma=(1.0, 1.0)), solarise=1.0)
    with closing(peer.open(photos, Recipe((group,)), workers=1, batch_size=5)) as batches:
        theirs = views_of(next(batches))[0].clone()
    ours = _reference(photos, group)
    closest = [min((view - other).abs().mean() for other in ours) for view in theirs]
    assert 0.225 * max(closest) < (4 if plain else 2) / 255
    assert len({view.mean().item() for view in theirs}) > 1


def _reference(photos: list[str], group: Views) -> Tensor:
    images = [np.array(Image.open(path).convert("RGB")) for path in photos]
    row = np.zeros((), ROW)
    settings = {"box_h": 90, "box_w": 90, "full_h": 40, "full_w": 40, "flip": 1, "order": NO_JITTER}
    if group.colour:
        settings |= {"grey": GREY_LAST, "sigma": 1.0, "radius": 3, "solarise": 1}
    for name, value in settings.items():
        row[name] = value
    target = Target("view", 1, 40, False, group.mean, group.std)
    rows = np.repeat(row, len(images)).reshape(-1, 1)
    return reference.render(images, rows, [target])["view"][:, 0]


@pytest.mark.parametrize("crop", [Window(48), Shift(4), Grid(2, 2), Grid(1, 3, Window(64))])
def test_torchvision_follows_every_law(photos, crop):
    group = Views("view", count=2, size=20, crop=crop, turns=not isinstance(crop, Grid))
    with closing(peers.load("torchvision").open(photos, Recipe((group,)), 0, 2)) as batches:
        views = next(batches)
    assert [tuple(view.shape) for view in views] == [(2, 3, 20, 20)] * group.total


def test_a_recipe_that_a_library_cannot_make_is_refused(peer, photos):
    if peer is peers.load("torchvision"):
        pytest.skip("torchvision can make them all")
    recipe = Recipe((Views("cells", count=1, size=8, crop=Grid(2, 2)),))
    with pytest.raises(MillError, match="cells"):
        peer.open(photos, recipe, 1, 2)


def test_an_unknown_peer_is_an_error_that_lists_the_known():
    with pytest.raises(MillError, match="torchvision, dali, ffcv"):
        peers.load("kornia")
