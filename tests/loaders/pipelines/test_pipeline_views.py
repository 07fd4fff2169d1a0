"""Contents of a batch: the rendered views, and their geometry in the source image."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from helpers_pipelines import RECIPE, Pictures, make_loader
from PIL import Image

from patchmill.kernels.views import reference
from patchmill.kernels.views.cpu import render
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Centre, Crop, Grid, Recipe, Shift, Spread, Views, Window

pytestmark = pytest.mark.usefixtures("pipeline")

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)


# -------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_views_equal_those_of_plan_and_renderer(dtype: torch.dtype, channels_last: bool) -> None:
    source, seed = Pictures(24), 11
    settings = {"dtype": dtype, "channels_last": channels_last}
    loader = make_loader(source, RECIPE, 6, seed=seed, workers=3, **settings)
    for epoch in range(2):
        for batch in loader:
            images = [decode(source.read(id)) for id in batch.ids.tolist()]
            shapes = [image.shape[:2] for image in images]
            drawn = draw.draw(RECIPE, seed, epoch, batch.ids.numpy(), shapes)
            assert (batch.rows == drawn.rows).all()
            assert (batch.shapes == shapes).all()
            views = render.render(images, drawn.rows, draw.targets(RECIPE), **settings)
            assert list(batch.views) == ["global", "local"]
            for name, view in batch.views.items():
                assert view.dtype == dtype
                assert torch.equal(view, views[name])


def test_crops_are_the_views_in_dinos_order_and_flat_copies_nothing() -> None:
    batch = next(iter(make_loader(recipe=RECIPE)))
    both = [batch.views["global"][:, v] for v in range(2)]
    both += [batch.views["local"][:, v] for v in range(3)]
    crops = batch.crops()
    assert [crop.shape for crop in crops] == [(4, 3, 16, 16)] * 2 + [(4, 3, 9, 9)] * 3
    for crop, view in zip(crops, both, strict=True):
        assert crop.data_ptr() == view.data_ptr()
        assert crop.is_contiguous()
    for name, views in batch.views.items():
        flat = batch.flat(name)
        assert flat.data_ptr() == views.data_ptr()
        assert torch.equal(flat, torch.cat(list(views.unbind(1))))


def test_channels_last_crops_are_channels_last() -> None:
    batch = next(iter(make_loader(recipe=RECIPE, channels_last=True)))
    for crop in [*batch.crops(), batch.flat("global"), batch.flat("local")]:
        assert crop.is_contiguous(memory_format=torch.channels_last)
    assert batch.flat("local").data_ptr() == batch.views["local"].data_ptr()


def test_ids_labels_and_length() -> None:
    loader = make_loader(30, drop_last=False, batch_size=8)
    assert len(loader) == 4
    sizes = []
    for batch in loader:
        assert (batch.ids.dtype, batch.ids.device.type) == (torch.int64, "cpu")
        assert batch.labels.dtype == torch.int64
        assert torch.equal(batch.labels, batch.ids % 3)
        sizes.append(len(batch))
        assert batch.views["view"].shape == (len(batch), 1, 3, 8, 8)
    assert sizes == [8, 8, 8, 6]


def test_no_kind_of_file_triggers_a_compilation() -> None:
    def formats(index: int) -> bytes:
        mode, kind = [("L", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("L", "JPEG")][
            index % 5
        ]
        stream = io.BytesIO()
        Image.effect_noise((20 + index, 30), 90).convert(mode).save(stream, kind)
        return stream.getvalue()

    source: Any = Pictures(20)
    source.read = formats
    loader = make_loader(source)
    compiled = [function.signatures[:] for function in (render.render_image, draw.draw_slots)]
    assert sum(len(batch) for batch in loader) == 20
    assert compiled == [function.signatures for function in (render.render_image, draw.draw_slots)]
    assert len(loader.ledger) == 0


# ----------------------------------------------------------------------------------------- geometry

PLAIN = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}
LAWS = {
    "crop": Views("v", 4, 24, Crop((0.2, 1.0)), turns=True, **PLAIN),
    "grid": Views("v", 2, 12, Grid(2, 3, Crop((0.3, 1.0))), **PLAIN),
    "grid of windows": Views("v", 1, 16, Grid(3, 2, Window(64)), **PLAIN),
    "window": Views("v", 3, 24, Window(48), turns=True, **PLAIN),
    "shift": Views("v", 4, 32, Shift(5), turns=True, **PLAIN),
    "centre": Views("v", 1, 24, Centre(32), **PLAIN),
    "spread": Views("v", 2, 24, Spread(2, 3, 0.3), turns=True, **PLAIN),
}


def ramp(height: int, width: int) -> bytes:
    """Red is x and green is y of each pixel; blue is full, so that black is outside."""
    y, x = np.mgrid[:height, :width]
    stream = io.BytesIO()
    picture = np.stack([x, y, np.full_like(x, 255)], -1).astype(np.uint8)
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("law", LAWS)
def test_geometry_maps_every_pixel_to_its_source(law: str) -> None:
    """Undo turns and flip of an image whose colours are its coordinates, then compare them."""
    source: Any = Pictures(12)
    source.read = lambda index: ramp(70 + index, 120 - index)
    (batch,) = make_loader(source, Recipe((LAWS[law],)), 12)
    views, geometry = batch.views["v"], batch.geometry["v"]
    flips, turns = set(), set()
    for i in range(len(batch)):
        assert geometry.shape[i].tolist() == [70 + batch.ids[i], 120 - batch.ids[i]]
        for v in range(views.shape[1]):
            flip, turn = bool(geometry.flip[i, v]), int(geometry.turns[i, v])
            view = torch.rot90(views[i, v], -turn, (-2, -1))
            view = view.flip(-1) if flip else view
            assert_shows(view, *geometry.box[i, v].tolist())
            flips.add(flip)
            turns.add(turn)
    assert flips == ({False, True})
    assert turns == ({0, 1, 2, 3} if LAWS[law].turns else {0})


def assert_shows(view: torch.Tensor, x1: float, y1: float, x2: float, y2: float) -> None:
    size = view.shape[-1]
    centre = (torch.arange(size) + 0.5) / size
    x, y = x1 + centre * (x2 - x1) - 0.5, y1 + centre * (y2 - y1) - 0.5
    red, green, blue = view
    inside = blue > 250
    assert inside.float().mean() > 0.5
    # Where the resize runs into the border of its box, its filter is cut off on one side.
    blurred = max(1.0, (x2 - x1) / size, (y2 - y1) / size) + 0.6
    assert (red - x[None, :])[inside].abs().max() < blurred
    assert (green - y[:, None])[inside].abs().max() < blurred
    middle = inside.clone()
    middle[:4], middle[-4:], middle[:, :4], middle[:, -4:] = False, False, False, False
    assert (red - x[None, :])[middle].abs().max() < 0.6
    assert (green - y[:, None])[middle].abs().max() < 0.6


def test_boxes_lie_in_their_image() -> None:
    (batch,) = make_loader(24, RECIPE, 24)
    for geometry in batch.geometry.values():
        height, width = geometry.shape[:, None, 0], geometry.shape[:, None, 1]
        x1, y1, x2, y2 = geometry.box.unbind(-1)
        assert ((x1 >= 0) & (y1 >= 0) & (x1 < x2) & (y1 < y2)).all()
        assert ((x2 <= width + 1e-3) & (y2 <= height + 1e-3)).all()


def test_a_batch_agrees_with_the_reference() -> None:
    source = Pictures(8)
    (batch,) = make_loader(source, RECIPE, 8)
    images = [decode(source.read(id)) for id in batch.ids.tolist()]
    expected = reference.render(images, batch.rows, draw.targets(RECIPE))
    for name, views in batch.views.items():
        difference = 255 * 0.229 * (views - expected[name]).abs()
        assert difference.mean() < 1
        assert difference.max() < 3
