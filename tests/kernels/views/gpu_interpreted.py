"""GPU renderer against the reference, run by Triton's interpreter on CPU tensors.

    TRITON_INTERPRET=1 python -m pytest tests/kernels/views/gpu_interpreted.py

The interpreter takes about 0.1 s per tile: views are as small as several tiles allow.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers_gpu_interpreted import DTYPES, LEVEL, render
from helpers_views import KINDS, Case, cases, make_image, make_row, order_of, target
from hypothesis import HealthCheck, Phase, given, settings

from patchmill.kernels.views import layout, reference
from patchmill.kernels.views.decisions import GREY_FIRST, GREY_LAST, NO_JITTER, Target
from patchmill.kernels.views.gpu import launch as gpu_launch
from patchmill.kernels.views.gpu import render as gpu
from patchmill.kernels.views.gpu import tables
from patchmill.kernels.views.gpu.tables import Images
from patchmill.loaders import presets
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Grid, Recipe

MEAN, MOST = 0.1, 1.2  # levels; a value at the threshold of solarise may be off by one


def assert_alike(images: list[np.ndarray], rows: np.ndarray, targets: Any, most: float = MOST):
    ours, theirs = render(images, rows, targets), reference.render(images, rows, targets)
    assert list(ours) == list(theirs)
    for its in targets:
        error = (ours[its.name] - theirs[its.name]).abs() * torch.tensor(its.std)[:, None, None]
        worst = error.amax((2, 3, 4)).argmax().item()
        image, view = divmod(worst, its.count)
        assert error.max() <= most * LEVEL, f"view {view} of image {image} of {its}"
        assert error.mean() <= MEAN * LEVEL, its


# ------------------------------------------------------------------------------------ parity


def small(recipe: Recipe) -> Recipe:
    """The same crop distributions for fewer and smaller views, with more likely operations."""
    groups = []
    for i, group in enumerate(recipe.views):
        law, size = group.crop, (34 if i == 0 else 18)
        if isinstance(law, Grid):
            law, size = replace(law, rows=2, columns=2), 8
        if hasattr(law, "short_side"):
            law = replace(law, short_side=40)
        groups.append(
            replace(
                group,
                size=size,
                count=min(group.count, i + 1),
                crop=law,
                solarise=0.5 if group.solarise else 0.0,
                colour=replace(group.colour, p=1.0, grey=0.3) if group.colour else None,
                blur=replace(group.blur, p=0.7) if group.blur else None,
                flip=0.5,
            )
        )
    return Recipe(tuple(groups))


@pytest.mark.parametrize("name", presets.ALL)
def test_presets(name: str):
    recipe = small(presets.ALL[name]())
    image = make_image("photo", 61, 83)
    rows = draw.draw(recipe, 3, 1, [5], [image.shape[:2]]).rows
    assert_alike([image], rows, draw.targets(recipe))


@settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(cases())
def test_any_row_of_any_image(case: Case):
    image, row, its = case
    if its.size > 40:
        its, row = replace(its, size=40), row.copy()
    assert_alike([image], np.array([[row]]), [its])


@pytest.mark.parametrize(
    ("kind", "bicubic"), [*((kind, True) for kind in KINDS), ("primary", False)]
)
def test_extremes(kind: str, bicubic: bool):
    """Huge downscaling, enlarged single pixels, strips, windows across and beyond the border."""
    image, its = make_image(kind, 40, 150), target(15, bicubic, 6)
    rows = [
        make_row(image, 15),
        make_row(image, 15, box_y=39, box_x=149, box_h=1, box_w=1),
        make_row(image, 15, box_h=1, box_x=7, box_w=140),
        make_row(image, 15, full_h=1000, full_w=3, win_y=990, win_x=-2),
        make_row(image, 15, full_h=20, full_w=20, win_y=12, win_x=-9, flip=1, turns=1),
        make_row(image, 15, full_h=20, full_w=20, win_y=40, win_x=0),
    ]
    assert_alike([image], np.array([rows]), [its])


def test_far_from_the_origin():
    """Positions in a wide image, and in a far larger virtual resize, keep their fractions."""
    image = make_image("noise", 3, 2001)
    rows = [
        make_row(image, 16, box_x=3, box_w=1998, full_h=3, full_w=777, win_x=750),
        make_row(image, 16, box_w=1999, full_h=9, full_w=6000, win_x=5900, win_y=2),
    ]
    assert_alike([image], np.array([rows]), [target(16, True, 2)])


@pytest.mark.parametrize("size", [11, 34])
def test_poses(size: int):
    image = make_image("photo", 40, 60)
    poses = itertools.product((0, 1), range(4))
    rows = [make_row(image, size, flip=flip, turns=turns) for flip, turns in poses]
    assert_alike([image], np.array([rows]), [target(size, False, 8)])


def test_orders():
    """All 24 orders of the jitter in one launch, and some where the mean needs a pass."""
    image = make_image("primary", 24, 31)
    factors = {"brightness": 1.7, "contrast": 1.6, "saturation": 1.9, "hue": 0.4}
    orders = [order_of(*order) for order in itertools.permutations(range(4))]
    rows = [make_row(image, 8, order=order, **factors) for order in orders]
    assert_alike([image], np.array([rows]), [target(8, False, 24)])
    rows = [make_row(image, 33, order=order, **factors) for order in orders[::5]]
    assert_alike([image], np.array([rows]), [target(33, False, len(rows))])


def test_identity_factors_are_skipped():
    image, order = make_image("photo", 30, 30), order_of(2, 1, 0, 3)
    rows = [make_row(image, 33, order=order), make_row(image, 33, order=NO_JITTER, contrast=0.0)]
    plain = make_row(image, 33)
    once, twice, thrice = render([image], np.array([[*rows, plain]]), [target(33, False, 3)])[
        "view"
    ][0]
    torch.testing.assert_close(once, thrice, atol=1e-5, rtol=0)
    assert torch.equal(twice, thrice)


@pytest.mark.parametrize("when", [GREY_FIRST, GREY_LAST])
def test_grey(when: int):
    image = make_image("noise", 20, 20)
    its, order = target(34, True), order_of(0, 1, 2, 3)
    row = make_row(image, 34, grey=when, order=order, brightness=1.5, contrast=0.5, hue=0.3)
    assert_alike([image], np.array([[row]]), [its])
    view = render([image], np.array([[row]]), [replace(its, mean=(0, 0, 0), std=(1, 1, 1))])
    red, green, blue = view["view"][0, 0]
    torch.testing.assert_close(red, green, atol=2e-3, rtol=0)
    torch.testing.assert_close(red, blue, atol=2e-3, rtol=0)


SIGMAS = (0.2, 1.85, 5.0)
# Radius beyond the view: for these, the interpreter folds thousands of positions one by one.
FAR = [(2, 18), (5, 30), (34, 40)]


@pytest.mark.parametrize(
    ("size", "radius", "sigmas"),
    [
        *((size, radius, SIGMAS) for size, radius in ((1, 3), (16, 15), (34, 6))),
        *((*far, SIGMAS[2:]) for far in FAR),
        *(pytest.param(*far, SIGMAS, marks=pytest.mark.slow) for far in FAR),
    ],
)
def test_blur(size: int, radius: int, sigmas: tuple[float, ...]):
    image = make_image("stripes", 35, 41) // 4  # dark, far from the planes' zero
    rows = [make_row(image, size, sigma=sigma, radius=radius) for sigma in sigmas]
    assert_alike([image], np.array([rows]), [target(size, False, len(rows))])


def test_white_stays_white():
    """Weights are rounded to float16 before they are normalised."""
    image, its = (
        np.full((77, 61, 3), 255, np.uint8),
        replace(target(34), mean=(0,) * 3, std=(1,) * 3),
    )
    row = make_row(image, 34, sigma=2.0, radius=6, order=order_of(1, 2, 3, 0), contrast=1.4)
    assert_flat = render([image], np.array([[row]]), [its])["view"]
    torch.testing.assert_close(assert_flat, torch.ones(1, 1, 3, 34, 34), atol=2e-5, rtol=0)


# ------------------------------------------------------------------- layout, types and memory


def mixture(count: int = 2) -> tuple[list[np.ndarray], np.ndarray, list[Target]]:
    """Ragged images and groups of every variant, with every decision somewhere."""
    targets = [target(33, True, 1, "a"), target(32, True, 1, "b"), target(7, False, 2, "c")]
    images = [make_image("photo", 41 + 9 * i, 67 - 11 * i, i) for i in range(count)]
    rng, rows = np.random.default_rng(1), []
    sizes = [its.size for its in targets for _ in range(its.count)]
    for image in images:
        rows.append(
            [
                make_row(
                    image,
                    size,
                    box_y=3,
                    box_x=5,
                    box_h=30,
                    box_w=25 + i,
                    flip=i % 2,
                    turns=i % 4,
                    order=order_of(*rng.permutation(4)),
                    contrast=rng.uniform(0.5, 1.5),
                    saturation=rng.uniform(0, 2),
                    hue=rng.uniform(-0.5, 0.5),
                    sigma=1.3 * (i % 2),
                    radius=4 * (i % 2),
                    solarise=i % 3 == 0,
                )
                for i, size in enumerate(sizes)
            ]
        )
    return images, np.array(rows), targets


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_and_channels_last(dtype: torch.dtype):
    images, rows, targets = mixture(1)
    exact = render(images, rows, targets)
    planar = render(images, rows, targets, dtype=dtype)
    last = render(images, rows, targets, dtype=dtype, channels_last=True)
    for its in targets:
        assert planar[its.name].dtype == last[its.name].dtype == dtype
        assert planar[its.name][0, 0].is_contiguous()
        assert last[its.name][0].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(planar[its.name], last[its.name])
        if dtype == torch.uint8:
            mean, std = torch.tensor(its.mean)[:, None, None], torch.tensor(its.std)[:, None, None]
            levels = 255 * (exact[its.name] * std + mean)
            assert (planar[its.name] - levels).abs().max() <= 0.501
        else:
            torch.testing.assert_close(planar[its.name], exact[its.name].to(dtype))


def test_results_do_not_depend_on_earlier_runs_other_images_or_chunks(
    monkeypatch: pytest.MonkeyPatch,
):
    """Bit-identical when repeated, in two chunks of unequal size, and alone."""
    images, rows, targets = mixture(3)
    first = render(images, rows, targets)
    assert gpu_launch.chunk_images(rows, targets) == 3
    monkeypatch.setattr(gpu_launch, "CACHED_PLANES", 5 * layout.elements(targets, 1))
    assert gpu_launch.chunk_images(rows, targets) == 2
    again = render(images, rows, targets)
    for name in first:
        assert torch.equal(first[name], again[name])
    alone = render(images[1:], rows[1:], targets)
    for name in first:
        assert torch.equal(first[name][1:], alone[name])


def test_only_the_box_is_read_and_only_the_batch_is_written():
    """Pixels around a box have no effect, at any alignment and row pitch."""
    (image,), rows, targets = mixture(1)
    rows, targets = rows[:, :1], targets[:1]
    expected, numbers = render([image], rows, targets), layout.elements(targets, 1)
    top, left, bottom, right = 3, 5, 33, 5 + max(rows["box_w"].ravel())
    height, width = image.shape[:2]
    for start, pad, poison in ((0, 0, 0), (1, 0, 255), (2, 5, 0), (3, 2, 255)):
        memory = torch.full((start + height * (3 * width + pad) + 64,), poison, dtype=torch.uint8)
        there = memory.as_strided((height, width, 3), (3 * width + pad, 3, 1), start)
        there[top:bottom, left:right] = torch.from_numpy(image[top:bottom, left:right])
        flat = torch.full((32 + numbers,), torch.nan)
        views = gpu.render([there], rows, targets, out=flat[16:-16])
        assert all(torch.equal(views[name], expected[name]) for name in expected)
        assert flat[:16].isnan().all()
        assert flat[-16:].isnan().all()


def test_the_callers_memory_is_filled():
    images, rows, targets = mixture(1)
    flat = torch.full((layout.elements(targets, 1),), torch.nan, dtype=torch.float16)
    found = render(images, rows, targets, out=flat, dtype=torch.uint8)
    assert not flat.isnan().any()
    assert all(part.untyped_storage().data_ptr() == flat.data_ptr() for part in found.values())


def test_no_images():
    _, rows, targets = mixture()
    views = render([], rows[:0], targets, out=torch.empty(0))
    assert [tuple(view.shape[:2]) for view in views.values()] == [(0, 1), (0, 1), (0, 2)]


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("field", "value"), [("box_y", -1), ("box_x", 60), ("box_h", 80), ("box_w", 0)]
)
def test_a_box_outside_of_its_image_is_refused(field: str, value: int):
    images, rows, targets = mixture()
    rows[field][1, 2] = value
    with pytest.raises(ValueError, match=r"view 2 of image 1 .* not inside the image of 50 x 56"):
        render(images, rows, targets)


def test_wrong_arguments_are_refused():
    images, rows, targets = mixture()
    tensors = [torch.from_numpy(image) for image in images]
    for wrong, complaint in [
        (lambda: gpu.render(tensors, rows[:1], targets), "2 images and 4 views"),
        (lambda: gpu.render(tensors, rows, targets[:2]), "2 images and 2 views"),
        (lambda: gpu.render(tensors, rows, targets, dtype=torch.float64), "float64"),
        (lambda: gpu.render(tensors, rows, targets, out=torch.empty(7)), r"not \(7,\) of"),
        (lambda: gpu.render([t.float() for t in tensors], rows, targets), "uint8"),
        (lambda: gpu.render([t[:, ::2] for t in tensors], rows, targets), "contiguous"),
        (lambda: gpu.render([], rows, targets), "no images"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            wrong()


# ------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("bicubic", [True, False])
def test_weights_match_the_reference_and_stay_in_their_records(bicubic: bool):
    """Downscaled, enlarged, mirrored and cut off; nothing else is written."""
    image, its = make_image("flat", 70, 200), target(40, bicubic, 4)
    rows = [
        make_row(image, 40),
        make_row(image, 40, box_y=7, box_h=9, box_w=150, turns=2),
        make_row(image, 40, full_h=90, win_y=30, full_w=1000, win_x=970, flip=1),
        make_row(image, 40, full_h=33, win_y=-3, box_w=1, turns=1),
    ]
    weigh, *_ = gpu_launch.launches(
        torch.zeros(layout.elements([its], 1)),
        Images.of([torch.from_numpy(image)]),
        np.array([rows]),
        [its],
    )
    memory = weigh.arguments["weights"].fill_(torch.nan)
    weigh()
    written = torch.zeros(len(memory), dtype=torch.bool)
    table, _ = tables.filter_table(np.array([rows]), [its])
    for row, fields in zip(rows, table[0], strict=True):
        for axis, side in enumerate("hw"):
            expected = reference.resize_weights(row[f"box_{side}"], row[f"full_{side}"], bicubic)
            first, size = 8 * fields[2 * axis], 8 * fields[2 * axis + 1]
            for tile in range(2):
                begin = first + tile * size
                start, length = memory[begin : begin + 4].view(torch.int32).tolist()
                room = -(-length // 32) * 32
                assert 8 + 2 * 32 + 32 * room <= size
                scale = memory[begin + 8 : begin + 72].view(torch.float32)
                found = memory[begin + 72 : begin + 72 + 32 * room].float()
                if axis == 0:
                    found = found.view(room // 16, 32, 16).permute(0, 2, 1)
                found = found.reshape(room, 32) * scale * (2.0**-24 if axis == 0 else 255)
                flipped = (row["turns"] >= 2) if axis == 0 else row["flip"] != (row["turns"] > 0)
                for pixel in range(32 * tile, min(32 * tile + 32, 40)):
                    at = row[f"win_{'yx'[axis]}"] + (39 - pixel if flipped else pixel)
                    line = torch.zeros(room)
                    if 0 <= at < len(expected):
                        line[:length] = expected[at, start : start + length]
                        assert line.sum() == pytest.approx(1, abs=1e-5)
                    torch.testing.assert_close(found[:, pixel % 32], line, atol=6e-4, rtol=0)
                written[begin : begin + 4] = True
                written[begin + 8 : begin + 72 + 32 * room] = True
    assert memory[~written].isnan().all()
