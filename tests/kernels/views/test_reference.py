"""The reference renderer against torchvision v2 and PIL on the same parameters."""

from __future__ import annotations

import re
from pathlib import Path

import helpers_deviations
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from helpers_views import (
    KINDS,
    Case,
    boxes,
    cases,
    factors,
    hues,
    images,
    make_image,
    make_row,
    order_of,
    seeds,
    target,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from patchmill.kernels.views import reference
from patchmill.kernels.views.decisions import (
    BRIGHTNESS,
    CONTRAST,
    GREY_FIRST,
    GREY_LAST,
    GREY_NEVER,
    HUE,
    LUMA,
    NO_JITTER,
    SATURATION,
    SOLARISE_FROM,
)

FLOAT_ERROR = 1e-4  # torch computes its resize weights in float32, ours are exact at that precision
LUMA_ERROR = 1.1e-4  # torchvision's red weight is 0.2989, ours 0.299
LEVEL = 1 / 255
MODES = [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC]
NAMES = {BRIGHTNESS: "brightness", CONTRAST: "contrast", SATURATION: "saturation", HUE: "hue"}

quick = settings(max_examples=60, deadline=None)
sides = st.one_of(st.integers(1, 5), st.integers(1, 64), st.just(224))


def floats(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1) / 255


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


# ------------------------------------------------------------------------------ complete views


@quick
@given(cases())
def test_any_row_of_any_image_gives_a_view(case: Case):
    view = reference.render_view(*case)
    assert view.shape == (3, case.target.size, case.target.size)
    assert view.dtype == torch.float32
    assert view.min() >= 0
    assert view.max() <= 1 + 1e-6
    assert torch.equal(view, reference.render_view(*case))


@quick
@given(cases())
def test_any_composition_matches_torchvision(case: Case):
    image, row, its = case
    view = floats(image[row["box_y"] :, row["box_x"] :][: row["box_h"], : row["box_w"]])
    view = tv.resize(view, [row["full_h"], row["full_w"]], MODES[its.bicubic]).clamp(0, 1)
    beyond = its.size + 1  # torchvision's crop must overlap the image
    view = tv.pad(view, beyond)
    view = tv.crop(view, row["win_y"] + beyond, row["win_x"] + beyond, its.size, its.size)
    if row["flip"]:
        view = tv.hflip(view)
    view = tv.rotate(view, 90.0 * row["turns"])
    if row["grey"] == GREY_FIRST:
        view = tv.rgb_to_grayscale(view, 3)
    if row["order"] != NO_JITTER:
        for position in range(4):
            name = NAMES[row["order"] >> 2 * position & 3]
            view = getattr(tv, f"adjust_{name}")(view, float(row[name]))
    if row["grey"] == GREY_LAST:
        view = tv.rgb_to_grayscale(view, 3)
    if row["sigma"] > 0:
        padded = np.pad(view.numpy(), [(0, 0), *[(int(row["radius"]),) * 2] * 2], mode="reflect")
        kernel = 2 * int(row["radius"]) + 1
        blurred = tv.gaussian_blur(torch.from_numpy(padded), kernel, float(row["sigma"]))
        view = tv.center_crop(blurred, [its.size, its.size])
    if row["solarise"]:
        view = tv.solarize(view, SOLARISE_FROM)
    # Factors up to 2 double a difference each; a value at the solarise threshold jumps a level.
    tolerance = 8 * (FLOAT_ERROR + LUMA_ERROR) + LEVEL * bool(row["solarise"])
    assert_close(reference.render_view(*case), view, tolerance)


def test_render_gives_each_target_its_rows_normalised():
    pictures = [make_image("noise", 20, 30, 0), make_image("photo", 9, 7, 1)]
    targets = [target(8, count=1, name="global"), target(4, count=2, name="local")]
    rows = np.array(
        [
            [make_row(image, 8), make_row(image, 4, flip=1), make_row(image, 4, turns=1)]
            for image in pictures
        ]
    )
    views = reference.render(pictures, rows, targets)
    assert {name: tuple(batch.shape) for name, batch in views.items()} == {
        "global": (2, 1, 3, 8, 8),
        "local": (2, 2, 3, 4, 4),
    }
    raw = reference.render_view(pictures[1], rows[1, 2], targets[1])
    expected = tv.normalize(raw, list(targets[1].mean), list(targets[1].std))
    assert_close(views["local"][1, 1], expected, 1e-6)


# ------------------------------------------------------------------------------------ geometry


@quick
@given(st.data(), images(), sides, st.booleans())
def test_resized_crop_matches_torchvision_on_floats(data, image, size, bicubic):
    box = data.draw(boxes(image))
    view = reference.render_view(image, make_row(image, size, **box), target(size, bicubic))
    places = [box[f"box_{name}"] for name in "yxhw"]
    theirs = tv.resized_crop(floats(image), *places, [size, size], MODES[bicubic])
    assert_close(view, theirs.clamp(0, 1), FLOAT_ERROR)


@quick
@given(st.data(), images(), sides, st.booleans())
def test_resized_crop_is_within_two_levels_of_uint8_and_pil(data, image, size, bicubic):
    if bicubic:  # both clamp between their two passes, so keep overshoot from reaching 0 and 255
        image = image // 3 + 85
    box = data.draw(boxes(image))
    view = reference.render_view(image, make_row(image, size, **box), target(size, bicubic))
    places = [box[f"box_{name}"] for name in "yxhw"]
    levels = torch.from_numpy(image).permute(2, 0, 1)
    for source in (levels, Image.fromarray(image)):
        theirs = tv.resized_crop(source, *places, [size, size], MODES[bicubic])
        theirs = theirs if isinstance(theirs, Tensor) else tv.pil_to_tensor(theirs)
        assert_close(view, theirs / 255, 2 * LEVEL)


@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize(("old", "new"), [(1, 1), (1, 9), (9, 1), (7, 7), (3000, 5), (5, 3000)])
def test_resize_weights_add_up_and_keep_equal_sizes(old, new, bicubic):
    weights = reference.resize_weights(old, new, bicubic)
    assert_close(weights.sum(1), torch.ones(new), 1e-5)
    if old == new:
        assert torch.equal(weights, torch.eye(new))


def test_bicubic_overshoot_is_clamped():
    image = make_image("primary", 16, 16)
    view = reference.render_view(image, make_row(image, 40), target(40, bicubic=True))
    assert view.min() == 0
    assert view.max() == 1


@pytest.mark.parametrize(("win_y", "win_x"), [(0, 0), (-4, 4), (3, -2), (8, 0), (0, -8)])
def test_a_window_is_black_outside_the_resized_box(win_y, win_x):
    image = make_image("noise", 8, 8)
    row = make_row(image, 8, win_y=win_y, win_x=win_x)
    view = reference.render_view(image, row, target(8))
    padded = np.pad(image, [(8, 8), (8, 8), (0, 0)])[8 + win_y :, 8 + win_x :][:8, :8]
    assert_close(view, floats(padded), 1e-6)


def test_cells_of_a_grid_make_up_the_whole_view():
    image = make_image("photo", 50, 70)
    whole = reference.render_view(image, make_row(image, 24), target(24))
    grid = {"full_h": 24, "full_w": 24}
    for y in range(0, 24, 8):
        for x in range(0, 24, 8):
            row = make_row(image, 8, win_y=y, win_x=x, **grid)
            cell = reference.render_view(image, row, target(8))
            assert_close(cell, whole[:, y : y + 8, x : x + 8], 1e-6)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [0, 1])
def test_flip_then_quarter_turns_counter_clockwise(flip, turns):
    image = make_image("noise", 6, 6)
    view = reference.render_view(image, make_row(image, 6, flip=flip, turns=turns), target(6))
    picture = Image.fromarray(image)
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert_close(view, tv.pil_to_tensor(picture.rotate(90 * turns)) / 255, 1e-6)


# -------------------------------------------------------------------------------------- colour

pictures = st.builds(
    make_image, st.sampled_from(KINDS), st.integers(1, 20), st.integers(1, 20), seeds
).map(floats)


@quick
@given(pictures, factors, hues)
def test_each_operation_matches_torchvision(view, factor, shift):
    red = abs(1 - factor) * LUMA_ERROR + 1e-5
    assert_close(reference.brightness(view, factor), tv.adjust_brightness(view, factor), 1e-6)
    assert_close(reference.contrast(view, factor), tv.adjust_contrast(view, factor), red)
    assert_close(reference.saturation(view, factor), tv.adjust_saturation(view, factor), red)
    assert_close(reference.hue(view, shift), tv.adjust_hue(view, shift), 1e-5)
    assert_close(reference.grey(view), tv.rgb_to_grayscale(view, 3), LUMA_ERROR)
    assert_close(reference.solarise(view), tv.solarize(view, SOLARISE_FROM), 0)


def test_jitter_follows_the_rows_order():
    image = make_image("noise", 5, 5)
    values = {"brightness": 1.7, "contrast": 0.4, "saturation": 1.9, "hue": 0.3}
    order = [HUE, CONTRAST, BRIGHTNESS, SATURATION]
    row = make_row(image, 5, order=order_of(*order), **values)
    expected = floats(image)
    for operation in order:
        name = NAMES[operation]
        expected = getattr(reference, name)(expected, values[name])
    assert_close(reference.render_view(image, row, target(5)), expected, 1e-6)


def test_identity_factors_change_nothing():
    image = make_image("noise", 9, 9)
    plain = reference.render_view(image, make_row(image, 9), target(9))
    row = make_row(image, 9, order=order_of(HUE, SATURATION, CONTRAST, BRIGHTNESS))
    assert torch.equal(reference.render_view(image, row, target(9)), plain)


def test_grey_first_is_grey_before_the_jitter():
    image = make_image("noise", 9, 9)
    jitter = {"order": order_of(0, 1, 2, 3), "brightness": 2.0, "saturation": 0.5}
    make = {
        grey: reference.render_view(image, make_row(image, 9, grey=grey, **jitter), target(9))
        for grey in (GREY_NEVER, GREY_LAST, GREY_FIRST)
    }
    view = floats(image)
    assert_close(make[GREY_FIRST], reference.brightness(reference.grey(view), 2.0), 1e-6)
    assert_close(make[GREY_LAST], reference.grey(make[GREY_NEVER]), 1e-6)
    assert not torch.allclose(make[GREY_FIRST], make[GREY_LAST], atol=1e-3)


def test_saturation_and_hue_preserve_white_black_and_grey():
    for level in (0.0, 0.5, 1.0):
        view = torch.full((3, 4, 4), level)
        assert_close(reference.saturation(view, 1.9), view, 1e-6)
        assert torch.equal(reference.hue(view, 0.4), view)
    assert sum(LUMA) == pytest.approx(1)


# ---------------------------------------------------------------------------------------- blur


@quick
@given(pictures, st.floats(0.1, 10), st.integers(1, 25))
def test_blur_matches_torchvision_and_reflects_repeatedly(view, sigma, radius):
    padded = np.pad(view.numpy(), [(0, 0), (radius, radius), (radius, radius)], mode="reflect")
    blurred = tv.gaussian_blur(torch.from_numpy(padded), 2 * radius + 1, sigma)
    expected = tv.center_crop(blurred, list(view.shape[-2:]))
    assert_close(reference.blur(view, sigma, radius), expected, 1e-5)
    if radius < min(view.shape[-2:]):
        plain = tv.gaussian_blur(view, 2 * radius + 1, sigma)
        assert_close(reference.blur(view, sigma, radius), plain, 1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_reflected_indices_match_numpy(size):
    reach = 25
    expected = np.pad(np.arange(size), reach, mode="reflect")
    index = reference.reflect(torch.arange(-reach, size + reach), size)
    np.testing.assert_array_equal(index.numpy(), expected)


def test_blur_of_one_pixel_and_of_no_radius_changes_nothing():
    pixel, view = torch.rand(3, 1, 1), torch.rand(3, 5, 5)
    assert_close(reference.blur(pixel, 2.0, 6), pixel, 1e-6)
    assert torch.equal(reference.blur(view, 2.0, 0), view)


# ---------------------------------------------------------------------------------- deviations


def test_the_table_of_deviations_holds():
    page = (Path(__file__).parents[3] / "docs" / "deviations.md").read_text()
    written = {
        name: (float(mean), float(worst))
        for name, mean, worst in re.findall(r"^\| (.+?) \| ([\d.]+) \| ([\d.]+) \|", page, re.M)
    }
    measured = helpers_deviations.measure(helpers_deviations.synthetic_photos())
    assert written.keys() == measured.keys()
    for name, distance in measured.items():
        mean, worst = written[name]
        assert distance.mean <= 1.2 * mean + 0.05, f"{name}: mean {distance.mean:.2f}"
        assert distance.worst <= 1.2 * worst + 0.5, f"{name}: worst {distance.worst:.1f}"
