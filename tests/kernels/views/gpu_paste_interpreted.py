"""GPU copy-paste against the reference, run by Triton's interpreter.

TRITON_INTERPRET=1 python -m pytest tests/kernels/views/gpu_paste_interpreted.py
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers_gpu_interpreted import DTYPES, LEVEL, render
from helpers_views import PasteCase, make_image, make_mask, make_row, order_of, paste_cases, target
from hypothesis import HealthCheck, Phase, given, settings

from patchmill.kernels.views import reference
from patchmill.kernels.views.cpu import render as cpu
from patchmill.kernels.views.decisions import ON_GREY, ON_IMAGE, ON_TEXTURE, PASTE_NEVER
from patchmill.kernels.views.gpu import render as gpu
from patchmill.kernels.views.gpu.tables import Images
from patchmill.loaders import presets
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Grid, Recipe, Shift

BACKGROUNDS = (ON_GREY, ON_TEXTURE, ON_IMAGE)
MEAN, MOST = 0.1, 1.2  # levels


def assert_alike(images, rows, targets, masks, backgrounds, mean=MEAN, most=MOST) -> None:
    extras = {"masks": masks, "backgrounds": backgrounds}
    ours = render(images, rows, targets, **extras)
    theirs = reference.render(images, rows, targets, **extras)
    for its in targets:
        error = (ours[its.name] - theirs[its.name]).abs() * torch.tensor(its.std)[:, None, None]
        worst = error.amax((2, 3, 4)).argmax().item()
        image, view = divmod(worst, its.count)
        assert error.max() <= most * LEVEL, f"view {view} of image {image} of {its}"
        assert error.mean() <= mean * LEVEL, its


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(paste_cases(largest=40))
def test_any_paste_of_any_view(case: PasteCase):
    rows = np.array([[case.row]])
    # The mean of 0.1 levels comes from noise enlarged many times with bicubic float16 weights.
    assert_alike([case.image], rows, [case.target], [case.mask], [case.background], mean=0.2)


SHORT = [(ON_GREY, 18), (ON_TEXTURE, 18), (ON_IMAGE, 34)]
LONG = [(ON_GREY, 34), (ON_TEXTURE, 34)]


@pytest.mark.parametrize(
    ("kind", "size"), [*SHORT, *(pytest.param(*it, marks=pytest.mark.slow) for it in LONG)]
)
def test_poses_and_windows(kind: int, size: int):
    """All eight poses of windows with black borders, of one tile and of four."""
    image, background = make_image("photo", 40, 60), make_image("photo", 50, 44, 1)
    poses = [(i & 1, i >> 1) for i in range(8)]
    window = {"full_h": 50, "full_w": 70, "win_y": 20, "win_x": -9}
    paste = {"paste": kind, "background": 200, "background_y": 0.4, "background_x": 0.1}
    rows = [
        make_row(image, size, flip=flip, turns=turns, mask_sigma=turns, **paste, **window)
        for flip, turns in poses
    ]
    mask = make_mask("disc", 19, 23)
    assert_alike([image], np.array([rows]), [target(size, False, 8)], [mask], [background])


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (70, 90)])
def test_masks_and_backgrounds_of_any_shape(shape: tuple[int, int]):
    image, background = make_image("photo", 75, 100), make_image("noise", *shape)
    rows = [
        make_row(
            image, 20, paste=kind, background=9, mask_sigma=soft, background_y=0.5, background_x=0.3
        )
        for kind in (ON_GREY, ON_IMAGE)
        for soft in (0.0, 5.0)
    ]
    for kind in ("noise", "checks"):
        mask = make_mask(kind, *shape)
        assert_alike([image], np.array([rows]), [target(20, True, 4)], [mask], [background])


@pytest.mark.parametrize(("background", "size"), [("grey", 18), ("texture", 18), ("images", 34)])
def test_a_ragged_batch_with_and_without_masks(background: str, size: int):
    """Jitter, blur and copy-paste in sequence; three images, one of them without a mask."""
    views = replace(presets.dilo(paste=0.7, background=background).views[0], size=size)
    grid = replace(presets.selfie().views[0], crop=Grid(2, 2, Shift(2)), size=9, paste=views.paste)
    recipe = Recipe((views, grid))
    shapes = [(61, 83), (40, 30), (33, 50)]
    images = [make_image("photo", *shape, seed) for seed, shape in enumerate(shapes)]
    rows = draw.draw(recipe, 3, 1, range(3), shapes).rows
    assert (rows["paste"] > 0).sum() > 5
    masks = [make_mask("disc", 16, 20), None, make_mask("noise", 30, 9)]
    assert_alike(images, rows, draw.targets(recipe), masks, images[::-1])


def looks(kind: int) -> list[dict]:
    jitter = {"order": order_of(2, 0, 3, 1), "brightness": 1.3, "contrast": 0.7, "hue": 0.1}
    paste = {"paste": kind, "background": 90, "background_y": 0.2}
    after = [{}, {"flip": 1, "turns": 1, **jitter}, {"sigma": 1.1, "radius": 4, "win_y": 3}]
    return [paste | {"mask_sigma": 5.0 * (i % 2)} | rest for i, rest in enumerate(after)]


# Each dtype, and each background; all pairs would take the interpreter half a minute.
USUAL = {*zip(DTYPES, itertools.cycle(BACKGROUNDS), strict=False)}
PAIRS = [
    pytest.param(*pair, marks=[] if pair in USUAL else pytest.mark.slow)
    for pair in itertools.product(DTYPES, BACKGROUNDS)
]


@pytest.mark.parametrize(("dtype", "kind"), PAIRS)
def test_a_full_mask_changes_no_bit(dtype: torch.dtype, kind: int):
    image, background = make_image("noise", 60, 70), make_image("photo", 50, 80)
    rows = np.array([[make_row(image, 20, **look) for look in looks(kind)]])
    plain = rows.copy()
    plain["paste"] = PASTE_NEVER
    its = [target(20, True, rows.size)]
    expected = render([image], plain, its, dtype=dtype)["view"]
    extras = {"masks": [np.full((37, 29), 255, np.uint8)], "backgrounds": [background]}
    assert torch.equal(render([image], rows, its, dtype=dtype, **extras)["view"], expected)
    assert torch.equal(render([image], rows, its, dtype=dtype)["view"], expected)
    extras["masks"] = [None]
    assert torch.equal(render([image], rows, its, dtype=dtype, **extras)["view"], expected)


@pytest.mark.parametrize("soft", [0.0, 5.0])
def test_an_empty_mask_leaves_only_the_grey(soft: float):
    image = make_image("noise", 60, 70)
    row = make_row(image, 34, paste=ON_GREY, background=201, mask_sigma=soft, flip=1, turns=3)
    its = [replace(target(34), mean=(0.0,) * 3, std=(1 / 255,) * 3)]
    made = render([image], np.array([[row]]), its, masks=[np.zeros((37, 29), np.uint8)])["view"]
    torch.testing.assert_close(made, torch.full_like(made, 201), atol=1e-3, rtol=0)


def test_textures_are_those_of_the_cpu():
    image, mask = make_image("flat", 20, 20), [np.zeros((1, 1), np.uint8)]
    its = [target(16, False, 6)]
    rows = [make_row(image, 16, paste=ON_TEXTURE, background=seed, win_x=2) for seed in range(5)]
    rows.append(make_row(image, 16, paste=ON_TEXTURE, background=2**31 - 1, full_h=40, win_y=20))
    rows = np.array([rows])
    ours = render([image], rows, its, dtype=torch.uint8, masks=mask)["view"]
    theirs = cpu.render([image], rows, its, dtype=torch.uint8, masks=mask)["view"]
    assert (ours.int() - theirs.int()).abs().max() <= 1


def test_only_masks_and_backgrounds_are_read():
    """At any alignment and row pitch, surrounded by other values."""
    image, mask = make_image("photo", 40, 50), make_mask("noise", 13, 21)
    background = make_image("photo", 30, 31, 2)
    rows = np.array(
        [[make_row(image, 18, paste=kind, background=5, mask_sigma=3) for kind in BACKGROUNDS]]
    )
    its = [target(18, False, 3)]
    expected = render([image], rows, its, masks=[mask], backgrounds=[background])["view"]
    for start, pad in ((1, 0), (3, 5)):
        there = [_surrounded(array, start, pad) for array in (mask, background)]
        options: dict[str, Any] = {"masks": there[:1], "backgrounds": there[1:]}
        made = gpu.render([torch.from_numpy(image)], rows, its, **options)["view"]
        assert torch.equal(made, expected)


def _surrounded(array: np.ndarray, start: int, pad: int) -> torch.Tensor:
    line = array[0].size + pad
    memory = torch.full((start + len(array) * line + 64,), 255, dtype=torch.uint8)
    strides = (line, *(stride for stride in array.strides[1:]))
    there = memory.as_strided(array.shape, strides, start)
    return there.copy_(torch.from_numpy(array))


def test_wrong_masks_are_refused():
    image, its = make_image("photo", 40, 50), [target(18)]
    rows, there = np.array([[make_row(image, 18)]]), [torch.from_numpy(image)]
    for mask, complaint in [
        (there[0], r"masks must be uint8 tensors \[height, width\], not .* \(40, 50, 3\)"),
        (there[0][..., 0].float(), "masks must be uint8"),
        (there[0][..., 0], "of masks must be contiguous"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            gpu.render(there, rows, its, masks=[mask])
    with pytest.raises(ValueError, match=r"backgrounds must be uint8 tensors \[height, width, 3\]"):
        gpu.render(there, rows, its, backgrounds=[there[0][..., 0]])
    with pytest.raises(ValueError, match=r"1 images need as many masks, each .* not 2"):
        gpu.render(there, rows, its, masks=[None, None])
    assert Images.of(there, [None]).masks is not None
