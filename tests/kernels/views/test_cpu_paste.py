"""CPU copy-paste against the reference, and invariants that must hold exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_views import PasteCase, make_image, make_mask, make_row, order_of, paste_cases, target
from hypothesis import given, settings

from patchmill.kernels import views
from patchmill.kernels.views import reference
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import ON_GREY, ON_IMAGE, ON_TEXTURE, PASTE_NEVER, ROW
from patchmill.loaders import presets
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Grid, Recipe, Shift

BACKGROUNDS = (ON_GREY, ON_TEXTURE, ON_IMAGE)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
MEAN, MOST = 0.55, 1.5  # levels


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same(images, rows, targets, masks, backgrounds, mean=MEAN, most=MOST) -> None:
    extras = {"masks": masks, "backgrounds": backgrounds}
    ours = render.render(images, rows, targets, **extras)
    theirs = reference.render(images, rows, targets, **extras)
    first = 0
    for its in targets:
        std = torch.tensor(its.std)[:, None, None]
        error = 255 * std * (ours[its.name] - theirs[its.name]).abs()
        for i, image in enumerate(images):
            for v in range(its.count):
                what = f"{its} of an image {image.shape}: {ROW.names} = {rows[i, first + v]}"
                assert error[i, v].mean() <= mean, what
                assert error[i, v].max() <= most, what
        first += its.count


@settings(max_examples=150, deadline=None)
@given(paste_cases())
def test_any_paste_of_any_view(case: PasteCase):
    rows = np.array([[case.row]])
    assert_same([case.image], rows, [case.target], [case.mask], [case.background])


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [7, 33, 98])
def test_every_pose_of_plain_and_partly_black_views(size: int, turns: int, flip: int, kind: int):
    image, background = make_image("photo", 50, 71), make_image("photo", 40, 90, 1)
    wide = {"full_h": 2 * size, "full_w": 3 * size, "win_y": size + 2, "win_x": -size // 2}
    paste = {"paste": kind, "background": 77, "background_y": 0.4, "background_x": 0.1}
    for window in ({}, {"win_y": -3, "win_x": 2}, wide):
        for soft in (0.0, 5.0):
            row = make_row(image, size, flip=flip, turns=turns, mask_sigma=soft, **paste, **window)
            mask = make_mask("disc", 19, 23)
            assert_same([image], np.array([[row]]), [target(size)], [mask], [background])


@pytest.mark.parametrize("shape", [(1, 1), (1, 256), (256, 1), (3, 700), (256, 192), (900, 40)])
@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_masks_and_backgrounds_of_any_shape(shape: tuple[int, int], kind: int):
    image, background = make_image("photo", 375, 500), make_image("noise", *shape)
    for soft in (0.0, 5.0, 50.0):
        row = make_row(
            image,
            64,
            paste=kind,
            background=200,
            mask_sigma=soft,
            background_y=0.5,
            background_x=0.3,
        )
        for mask in (make_mask("noise", *shape), make_mask("checks", *shape)):
            assert_same([image], np.array([[row]]), [target(64, True)], [mask], [background])


@pytest.mark.parametrize("background", ["grey", "texture", "images"])
@pytest.mark.parametrize("name", ["dilo", "gtsa", "selfie", "emp_ssl", "bagssl"])
def test_presets_with_copy_paste(name: str, background: str):
    paste = presets.dilo(paste=0.6, background=background).views[0].paste
    groups = presets.ALL[name]().views
    recipe = Recipe(tuple(replace(group, paste=paste) for group in groups))
    shapes = [(375, 500), (500, 334), (32, 32), (1, 20), (1, 1)]
    images = [make_image("photo", *shape, seed) for seed, shape in enumerate(shapes)]
    masks = [make_mask("disc", 96, 128), make_mask("noise", 50, 40), None, *[masks_of_one()] * 2]
    rows = draw.draw(recipe, 7, 3, range(len(images)), shapes).rows
    assert_same(images, rows, draw.targets(recipe), masks, images[::-1], mean=1.5, most=3)


def masks_of_one() -> np.ndarray:
    return np.full((1, 1), 128, np.uint8)


# ------------------------------------------------------------------------------ exact invariants


def looks() -> list[dict]:
    """Every background, sharp and soft, in poses, windows and colours that follow."""
    jitter = {"order": order_of(2, 0, 3, 1), "brightness": 1.3, "contrast": 0.7, "hue": 0.1}
    after = [{}, {"flip": 1, "turns": 1}, jitter, {"sigma": 1.1, "radius": 4, "win_y": 3}]
    return [
        {"paste": kind, "background": 90, "mask_sigma": soft, "background_y": 0.2, **rest}
        for kind in BACKGROUNDS
        for soft in (0.0, 5.0)
        for rest in after
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_full_mask_changes_no_bit(dtype: torch.dtype):
    image, background = make_image("noise", 90, 120), make_image("photo", 50, 80)
    rows = np.array([[make_row(image, 45, **look) for look in looks()]])
    plain = rows.copy()
    plain["paste"] = PASTE_NEVER
    its = [target(45, True, rows.size)]
    expected = render.render([image], plain, its, dtype=dtype)["view"]
    for shape in ((1, 1), (9, 7), (192, 256), (300, 400)):
        full = [np.full(shape, 255, np.uint8)]
        made = render.render([image], rows, its, dtype=dtype, masks=full, backgrounds=[background])
        assert torch.equal(made["view"], expected), shape


def test_without_a_mask_nothing_changes():
    image, its = make_image("noise", 90, 120), [target(45, True, len(looks()))]
    rows = np.array([[make_row(image, 45, **look) for look in looks()]])
    plain = rows.copy()
    plain["paste"] = PASTE_NEVER
    expected = render.render([image], plain, its)["view"]
    assert torch.equal(render.render([image], rows, its)["view"], expected)
    assert torch.equal(render.render([image], rows, its, masks=[None])["view"], expected)
    empty = np.zeros((9, 9), np.uint8)
    alone = render.render([image], rows, its, masks=[empty], backgrounds=[None])["view"]
    on_images = rows["paste"][0] == ON_IMAGE
    assert torch.equal(alone[0, on_images], expected[0, on_images])
    assert not torch.equal(alone[0, ~on_images], expected[0, ~on_images])


@pytest.mark.parametrize("soft", [0.0, 5.0])
@pytest.mark.parametrize("level", [0, 1, 128, 254])
def test_an_empty_mask_leaves_only_the_grey(level: int, soft: float):
    image = make_image("noise", 90, 120)
    row = make_row(image, 45, paste=ON_GREY, background=level, mask_sigma=soft, flip=1, turns=3)
    its = [replace(target(45), mean=(0.0,) * 3, std=(1 / 255,) * 3)]
    for shape in ((1, 1), (9, 7), (192, 256)):
        empty = [np.zeros(shape, np.uint8)]
        made = render.render([image], np.array([[row]]), its, masks=empty)["view"]
        torch.testing.assert_close(made, torch.full_like(made, level), atol=1e-4, rtol=0)
        assert (made == made.flatten()[0]).all()


def test_padding_stays_black():
    image, empty = make_image("noise", 40, 40), [np.zeros((8, 8), np.uint8)]
    row = make_row(image, 32, paste=ON_GREY, background=100, win_y=-4, win_x=3)
    made = render.render([image], np.array([[row]]), [target(32)], dtype=torch.uint8, masks=empty)
    made = made["view"][0, 0]
    assert not made[:, :4].any() and not made[:, :, -3:].any()
    assert (made[:, 4:, :-3] == 100).all()


def test_cells_of_a_grid_are_cut_from_one_pasted_view():
    """A grid of views shows the same as the whole view."""
    paste = presets.dilo(paste=1, background="texture").views[0].paste
    cells = replace(presets.selfie().views[0], crop=Grid(2, 2, Shift(2)), size=16, paste=paste)
    whole = replace(cells, crop=Shift(2), size=32)
    image, mask = make_image("photo", 32, 32), [make_mask("disc", 16, 16)]
    parts, one = (
        render.render(
            [image],
            draw.draw(Recipe((group,)), 0, 0, [4], [(32, 32)]).rows,
            draw.targets(Recipe((group,))),
            dtype=torch.uint8,
            masks=mask,
        )["patches"][0]
        for group in (cells, whole)
    )
    joined = torch.cat([torch.cat(tuple(parts[i : i + 2]), 2) for i in (0, 2)], 1)
    assert torch.equal(joined, one[0])


@pytest.mark.parametrize("channels_last", [False, True])
def test_layouts_hold_the_same_numbers(channels_last: bool):
    image, mask = make_image("photo", 90, 120), [make_mask("disc", 20, 30)]
    rows = np.array([[make_row(image, 33, **look) for look in looks()]])
    its = [target(33, False, rows.size)]
    options = {"masks": mask, "backgrounds": [image[:50, :60]], "channels_last": channels_last}
    exact = render.render([image], rows, its, **options)
    for dtype in (torch.bfloat16, torch.float16):
        rounded = views.render([image], rows, its, dtype=dtype, **options)
        assert torch.equal(rounded["view"], exact["view"].to(dtype))
