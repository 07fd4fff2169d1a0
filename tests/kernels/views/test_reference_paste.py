"""Reference copy-paste against DiLo's compositing before the crop, up to resampling."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from helpers_views import make_image, make_mask, make_row, target
from PIL import Image, ImageFilter

from patchmill.kernels.views import reference, reference_paste
from patchmill.kernels.views.decisions import ON_GREY, ON_IMAGE, ON_TEXTURE

SIZE = 48


def view(image: np.ndarray, mask: np.ndarray | None, behind=None, **fields) -> torch.Tensor:
    row = make_row(image, SIZE, **fields)
    return 255 * reference.render_view(image, row, target(SIZE), mask, behind)


def as_dilo(image: np.ndarray, mask: np.ndarray, behind: np.ndarray, soft: float) -> np.ndarray:
    """Composite the stored image onto a background with PIL, before anything else."""
    plane = Image.fromarray(mask)
    if soft:
        plane = plane.filter(ImageFilter.GaussianBlur(soft))
    return np.asarray(Image.composite(Image.fromarray(image), Image.fromarray(behind), plane))


@pytest.mark.parametrize("soft", [0.0, 5.0])
@pytest.mark.parametrize(
    "box",
    [
        {},
        {"box_y": 40, "box_x": 61, "box_h": 130, "box_w": 173},
        {"full_h": 90, "full_w": 100, "win_y": -7, "win_x": 20, "flip": 1, "turns": 1},
    ],
)
def test_pasting_before_the_crop_is_the_same_up_to_resampling(box: dict, soft: float):
    image, mask = make_image("photo", 240, 320), make_mask("disc", 240, 320)
    before = view(as_dilo(image, mask, np.full_like(image, 87), soft), None, **box)
    after = view(image, mask, paste=ON_GREY, background=87, mask_sigma=soft, **box)
    assert (before - after).abs().max() < 8
    assert (before - after).abs().mean() < 0.5


def test_a_small_mask_covers_the_image_corner_to_corner():
    """Linear between the mask's pixel centres, which are 50 image pixels apart here."""
    image = np.full((200, 300, 3), 255, np.uint8)
    mask = np.zeros((4, 6), np.uint8)
    mask[1:, :3] = 255
    made = view(image, mask, paste=ON_GREY, full_h=200, full_w=300, win_y=20, win_x=135)
    y, x = torch.arange(20, 20 + SIZE) + 0.5, torch.arange(135, 135 + SIZE) + 0.5
    share = ((y - 25) / 50).clamp(0, 1)[:, None] * ((175 - x) / 50).clamp(0, 1)
    torch.testing.assert_close(made, (255 * share).expand(3, -1, -1), atol=0.01, rtol=0)


@pytest.mark.parametrize("kind", [ON_GREY, ON_TEXTURE, ON_IMAGE])
@pytest.mark.parametrize("soft", [0.0, 5.0])
def test_a_full_mask_changes_nothing_and_an_empty_one_leaves_the_background(kind, soft):
    image, other = make_image("noise", 70, 90), np.full((20, 30, 3), 33, np.uint8)
    looks = {"paste": kind, "background": 33, "mask_sigma": soft, "turns": 1, "flip": 1}
    full, empty = np.full((9, 13), 255, np.uint8), np.zeros((9, 13), np.uint8)
    plain = view(image, None, turns=1, flip=1)
    assert torch.equal(view(image, full, other, **looks), plain)
    assert torch.equal(view(image, None, other, **looks), plain)
    made = view(image, empty, other, **looks)
    if kind == ON_TEXTURE:
        other = view(image[::-1].copy(), empty, **looks)
        torch.testing.assert_close(made, other, atol=1e-3, rtol=0)
    else:
        torch.testing.assert_close(made, torch.full_like(made, 33), atol=1e-4, rtol=0)


def test_an_image_without_a_background_is_unchanged():
    image, empty = make_image("noise", 70, 90), np.zeros((9, 13), np.uint8)
    assert torch.equal(view(image, empty, None, paste=ON_IMAGE), view(image, None))


def test_padding_stays_black():
    image, empty = make_image("noise", 70, 90), np.zeros((9, 13), np.uint8)
    made = view(image, empty, paste=ON_GREY, background=100, win_y=-3, win_x=2)
    assert not made[:, :3].any() and not made[:, :, -2:].any()
    torch.testing.assert_close(made[:, 3:, :-2], torch.full((3, 45, 46), 100.0))


@pytest.mark.parametrize(("tall", "wide"), [(60, 200), (300, 50), (500, 700)])
@pytest.mark.parametrize(("y", "x"), [(0.0, 0.0), (0.5, 0.25)])
def test_a_background_is_enlarged_until_it_covers_the_image(tall: int, wide: int, y, x):
    """Against PIL: enlarged at its aspect ratio, never shrunk; offset by a share of the margin."""
    image, other = np.zeros((100, 140, 3), np.uint8), make_image("photo", tall, wide, 3)
    zoom = max(100 / tall, 140 / wide, 1)
    large = Image.fromarray(other).resize(
        (round(zoom * wide), round(zoom * tall)), Image.Resampling.BILINEAR
    )
    left, top = x * (large.width - 140), y * (large.height - 100)
    behind = large.transform((140, 100), Image.Transform.AFFINE, (1, 0, left, 0, 1, top), 2)
    made = view(
        image, np.zeros((5, 5), np.uint8), other, paste=ON_IMAGE, background_y=y, background_x=x
    )
    error = (made - view(np.asarray(behind), None)).abs()
    assert error.mean() < 2 and error.max() < 40


def test_the_masks_blur_is_a_gaussian_of_stored_pixels():
    mask = make_mask("checks", 24, 30).repeat(10, 0).repeat(10, 1)
    row = make_row(np.empty((240, 300, 3)), 240, full_w=300)
    y_axis, x_axis = (
        reference_paste.axis_of(row, name, side, size, size)
        for name, side, size in (("y", "h", 240), ("x", "w", 300))
    )
    ours = 255 * (1 - reference_paste.background_alpha(mask, 5.0, y_axis, x_axis).numpy())
    pils = np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(5)), np.float32)
    assert abs(ours - pils).max() < 4


def test_textures_depend_on_seed_and_pixel_only():
    y, x = torch.arange(-3, 60), torch.arange(500, 590)
    whole = reference_paste.texture(7, y, x)
    assert torch.equal(whole[:, 5:20, 30:41], reference_paste.texture(7, y[5:20], x[30:41]))
    assert not torch.equal(whole, reference_paste.texture(8, y, x))
    assert whole.min() >= 0 and whole.max() <= 1 and whole.shape == (3, 63, 90)


def test_textures_vary_over_each_view_and_never_change():
    place = torch.arange(96)
    made = [reference_paste.texture(seed, place, place) for seed in range(64)]
    contrasts = torch.stack([texture.std((1, 2)).max() for texture in made])
    assert (contrasts > 0.03).float().mean() > 0.9
    levels = (255 * torch.stack(made) + 0.5).byte().numpy()
    assert zlib.crc32(levels[:8].tobytes()) == 714803448
