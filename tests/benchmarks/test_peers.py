"""Every installed peer makes the views of a recipe; the others are skipped with a reason."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
import sys
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
from patchmill.benchmarks.peers import ragged
from patchmill.kernels.views import reference
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import GREY_LAST, NO_JITTER, ROW, Target
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import (
    Blur,
    Centre,
    Colour,
    CopyPaste,
    Crop,
    Grid,
    Recipe,
    Shift,
    Spread,
    Views,
    Window,
)

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
DRAWS = 1000


# FFCV compiles every view's pipeline, which takes many seconds.
ALL_BUT_FFCV = [name for name in peers.NAMES if name != "ffcv"]


@pytest.fixture(params=[*ALL_BUT_FFCV, pytest.param("ffcv", marks=pytest.mark.slow)])
def peer(request) -> peers.Peer:
    module = peers.load(request.param)
    if reason := module.available():
        pytest.skip(reason)
    return module


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Five square photos with smooth gradients, which JPEG preserves well."""
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
    """Without random choices; FFCV lacks operations, so only its resize is compared."""
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


@pytest.mark.parametrize("name", ALL_BUT_FFCV)
def test_view_statistics_match_ours(photos, name):
    """Each view's mean and standard deviation over many draws, at the strengths of DINO."""
    peer = peers.load(name)
    if reason := peer.available():
        pytest.skip(reason)
    torch.manual_seed(0)
    random.seed(0)
    with closing(peer.open(photos, DINO, workers=1, batch_size=DRAWS)) as batches:
        theirs = _statistics(views_of(next(batches)))
    images = [np.array(Image.open(path).convert("RGB")) for path in photos] * (DRAWS // 5)
    rows = draw.draw(DINO, 0, 0, range(DRAWS), [image.shape[:2] for image in images]).rows
    groups = render.render(images, rows, draw.targets(DINO))
    ours = _statistics([view for group in groups.values() for view in group.unbind(1)])
    assert torch.allclose(theirs, ours, atol=0.15)


def _statistics(views: list[Tensor]) -> Tensor:
    return torch.stack([torch.stack([view.mean(), view.std()]) for view in views])


ALL_CROPS = ["torchvision", "torchvision-v2", "albumentations", "opencv", "torchvision-gpu"]


@pytest.mark.parametrize("crop", [Window(48), Shift(4), Centre(48), Grid(2, 2), Grid(1, 3)])
@pytest.mark.parametrize("name", [*ALL_CROPS, "kornia", "spdl"])
def test_every_crop_has_its_shape(photos, name, crop):
    peer = peers.load(name)
    if reason := peer.available():
        pytest.skip(reason)
    group = Views("view", count=2, size=20, crop=crop, interpolation="bicubic")
    with closing(peer.open(photos, Recipe((group,)), 1, 2)) as batches:
        views = next(batches)
    assert [tuple(view.shape) for view in views] == [(2, 3, 20, 20)] * group.total


def test_a_grid_is_cut_row_by_row(photos):
    """The cells of a grid form the uncut view."""
    uncut = Views("view", count=1, size=40, crop=Crop((1.0, 1.0), (1.0, 1.0)), flip=0.0)
    cut = replace(uncut, size=20, crop=Grid(2, 2, Crop((1.0, 1.0), (1.0, 1.0))))
    for name in ALL_CROPS:
        peer = peers.load(name)
        if peer.available():
            continue
        with closing(peer.open(photos[:1], Recipe((uncut,)), 1, 1)) as batches:
            view = next(batches)[0][0]
        with closing(peer.open(photos[:1], Recipe((cut,)), 1, 1)) as batches:
            a, b, c, d = (cell[0] for cell in next(batches))
        together = torch.cat([torch.cat([a, b], -1), torch.cat([c, d], -1)], -2)
        assert torch.equal(view, together)


@pytest.mark.parametrize("name", ALL_CROPS)
def test_all_four_quarter_turns_occur(photos, name):
    group = Views("view", count=1, size=20, crop=Centre(20), flip=0.0, turns=True)
    torch.manual_seed(0)
    random.seed(0)
    peer = peers.load(name)
    if reason := peer.available():
        pytest.skip(reason)
    with closing(peer.open(photos[:1], Recipe((group,)), 1, 64)) as batches:
        views = next(batches)[0]
    assert len({view.flatten()[:60].sum().item() for view in views}) == 4


@pytest.mark.parametrize("name", ["dali", pytest.param("ffcv", marks=pytest.mark.slow), "kornia"])
def test_a_recipe_that_a_library_cannot_make_is_refused(photos, name):
    peer = peers.load(name)
    if reason := peer.available():
        pytest.skip(reason)
    turned = Recipe((Views("turned", count=1, size=8, turns=True),))
    with pytest.raises(MillError, match="turned"):
        peer.open(photos, turned, 1, 2)


@pytest.mark.parametrize("name", ["torchvision", "albumentations", "opencv", "spdl"])
def test_evenly_spaced_windows_are_refused(photos, name):
    peer = peers.load(name)
    if reason := peer.available():
        pytest.skip(reason)
    with pytest.raises(MillError, match="no evenly spaced windows, which view group 'spread'"):
        batches = peer.open(photos, Recipe((Views("spread", 1, 8, Spread()),)), 1, 2)
        next(batches)


def test_what_no_peer_makes_is_refused():
    pasted = Recipe((Views("pasted", 1, 8, paste=CopyPaste()),))
    with pytest.raises(MillError, match="spdl peer has no copy-paste, which view group 'pasted'"):
        peers.check("spdl", pasted)
    peers.check("spdl", DINO)


def test_peers_say_truly_whether_they_antialias(peer, tmp_path):
    """Noise downscaled to a sixth: a filter averages it, while sampled pixels keep its contrast."""
    if peer.DEVICES["cpu"]:
        pytest.skip(peer.DEVICES["cpu"])
    noise = np.random.default_rng(0).integers(0, 256, (192, 192), np.uint8)
    path = str(tmp_path / "noise.jpg")
    Image.fromarray(noise).convert("RGB").save(path, quality=98)
    group = Views("view", 1, 32, Crop((1.0, 1.0), (1.0, 1.0)), interpolation="bicubic")
    with closing(peer.open([path], Recipe((group,)), 1, 1)) as batches:
        view = views_of(next(batches))[0][0]
    left = float(view.std()) * 0.225 / (noise.std() / 255)
    assert (left < 0.35) == peer.ANTIALIASED, left


def test_jitter_blur_and_solarise_happen(peer, photos):
    """Each operation changes views that are otherwise equal, and without any nothing changes."""
    if peer.NOTE.startswith("does less"):
        pytest.skip("it has no such operations")
    whole = Views("view", 1, 32, Crop((1.0, 1.0), (1.0, 1.0)), flip=0.0)
    changes = {
        "none": {},
        "brightness": {"colour": Colour(brightness=0.8, p=1.0, grey=0.0)},
        "contrast": {"colour": Colour(contrast=0.8, p=1.0, grey=0.0)},
        "saturation": {"colour": Colour(saturation=0.8, p=1.0, grey=0.0)},
        "hue": {"colour": Colour(hue=0.4, p=1.0, grey=0.0)},
        "grey": {"colour": Colour(p=0.0, grey=1.0)},
        "blur": {"blur": Blur(p=1.0, sigma=(2.0, 2.0))},
        "solarise": {"solarise": 1.0},
    }
    groups = tuple(replace(whole, name=name, **change) for name, change in changes.items())
    with closing(peer.open(photos[:1], Recipe(groups), 1, 8)) as batches:
        views = dict(zip(changes, views_of(next(batches)), strict=True))
    plain = views.pop("none")
    assert torch.allclose(plain, plain[:1].expand_as(plain), atol=0.02)
    for name, changed in views.items():
        assert (changed - plain).abs().mean() > 0.02, name
    pixels = views["grey"] * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = pixels + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    assert (pixels - pixels[:, :1]).abs().max() < 0.02


def test_the_network_is_not_asked(monkeypatch):
    """Albumentations checks for its newest version on import, unless disabled."""
    pytest.importorskip("albumentations")
    program = (
        "import socket; from patchmill.benchmarks.peers import albumentations as peer\n"
        "def refuse(*arguments): raise SystemExit('the network was asked')\n"
        "socket.getaddrinfo = socket.socket.connect = refuse; peer._library()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_peer_names_its_devices():
    for name in peers.NAMES:
        assert set(peers.load(name).DEVICES) == {"cpu", "cuda"}
        assert not all(peers.load(name).DEVICES.values()) and peers.load(name).DECODER


def test_deviations_from_a_recipe_are_noted():
    assert peers.note("torchvision", DINO) == ""
    overlapping = Recipe((Views("a", 2, 16), Views("b", 1, 16, Crop((0.3, 1.0), min_overlap=0.1))))
    assert peers.note("torchvision", overlapping).startswith("does not draw crops again")
    assert peers.note("dali", overlapping).endswith(
        "; it does not draw crops again that overlap too little"
    )


def test_the_error_for_an_unknown_peer_lists_all_peers():
    with pytest.raises(MillError, match="torchvision, torchvision-v2, albumentations,"):
        peers.load("webdataset")


# ----------------------------------------------------------------------------------- their decoders


@pytest.mark.parametrize("name", ragged.DECODERS)
def test_decoders_give_the_pixels(photos, name):
    pytest.importorskip(name)
    encoded = [torch.frombuffer(bytearray(Path(p).read_bytes()), dtype=torch.uint8) for p in photos]
    for image, path in zip(ragged.DECODERS[name]("cpu")(encoded), photos, strict=True):
        wanted = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
        assert torch.equal(image.permute(1, 2, 0), wanted)


def test_the_first_working_decoder_is_used(monkeypatch):
    def broken(device):
        raise ImportError("no FFmpeg\nmore lines")

    probe = [torch.zeros(0, dtype=torch.uint8)]
    monkeypatch.setattr(ragged, "DECODERS", {"a": broken, "b": lambda device: list})
    assert ragged.decoder("cpu", probe) is list
    monkeypatch.setattr(ragged, "DECODERS", {"a": broken})
    with pytest.raises(MillError, match=r"decodes JPEGs on cpu: a: no FFmpeg$"):
        ragged.decoder("cpu", probe)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torchvision", "torchvision-gpu", "kornia", "dali"])
def test_on_a_gpu_views_stay_there(photos, name):
    peer = peers.load(name)
    if reason := peer.available():
        pytest.skip(reason)
    with closing(peer.open(photos, DINO, workers=1, batch_size=4, device="cuda")) as batches:
        for _ in range(3):
            views = views_of(next(batches))
            assert [tuple(view.shape) for view in views] == [(4, 3, s, s) for s in SIZES]
            assert all(view.is_cuda and view.element_size() == 2 for view in views)
            assert all(0.3 < view.float().std() < 3 for view in views)
