"""Crops that must overlap with the crops of the first group."""

import numpy as np
import pytest
from scipy import stats

from patchmill.loaders import presets
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Crop, Recipe, Views


def overlaps(first: np.ndarray, second: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Overlaps of boxes, as shares of the images' areas."""
    shared = 1
    for corner, side in ("box_y", "box_h"), ("box_x", "box_w"):
        ends = np.minimum(first[corner] + first[side], second[corner] + second[side])
        shared = shared * np.maximum(ends - np.maximum(first[corner], second[corner]), 0)
    return shared / shapes.prod(1)


def photo_shapes(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(150, 700, (n, 2))


def test_gtsa_s_crops_overlap_every_global_crop():
    shapes = photo_shapes(10_000)
    rows = draw.draw(presets.gtsa(), 0, 0, np.arange(10_000), shapes).rows
    assert overlaps(rows[:, 0], rows[:, 1], shapes).min() > 0.02
    for view in range(2, 10):
        for anchor in range(2):
            assert overlaps(rows[:, view], rows[:, anchor], shapes).min() > 0.01


def test_photos_need_no_fallback():
    shapes = np.tile((375, 500), (5000, 1))
    rows = draw.draw(presets.gtsa(), 0, 0, np.arange(5000), shapes).rows
    assert np.mean(rows["fallback"]) < 1e-3


def test_gtsa_s_turns_are_uniform_and_nothing_is_mirrored():
    rows = draw.draw(presets.gtsa(), 0, 0, np.arange(3000), photo_shapes(3000)).rows
    for view in range(10):
        assert stats.chisquare(np.bincount(rows["turns"][:, view])).pvalue > 0.001
    assert not rows["flip"].any()


def test_crops_are_torchvision_s_until_they_fail_to_overlap():
    shapes = photo_shapes(2000)
    free, bound = (
        Recipe((Views("a", 2, 32, Crop((0.1, 1.0), min_overlap=least)),)) for least in (0, 0.05)
    )
    free, bound = (draw.draw(r, 1, 0, np.arange(2000), shapes).rows for r in (free, bound))
    kept = overlaps(free[:, 0], free[:, 1], shapes) > 0.05
    assert 0.2 < kept.mean() < 0.98
    assert np.all(free[:, 0] == bound[:, 0])
    assert np.all(free[:, 1][kept] == bound[:, 1][kept])
    assert np.all(free[:, 1][~kept] != bound[:, 1][~kept])


def test_crops_that_hardly_ever_overlap_enough_are_placed_where_they_do():
    recipe = Recipe(
        (
            Views("a", 1, 32, Crop((0.1, 0.1), (1.0, 1.0))),
            Views("b", 4, 32, Crop((0.1, 0.1), (1.0, 1.0), min_overlap=0.09)),
        )
    )
    shapes = photo_shapes(500)
    rows = draw.draw(recipe, 0, 0, np.arange(500), shapes).rows
    placed = rows["fallback"][:, 1:].astype(bool)
    assert placed.mean() > 0.5
    for view in range(1, 5):
        ordinary = overlaps(rows[:, view], rows[:, 0], shapes) > 0.09
        assert np.all(ordinary | (rows["fallback"][:, 0] == 1))
    offsets = (rows["box_x"][:, 1] - rows["box_x"][:, 0])[placed[:, 0]]
    assert offsets.min() < 0 < offsets.max()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (33, 500), (3, 2)])
def test_extreme_shapes_end_quickly(shape):
    shapes = np.tile(shape, (300, 1))
    rows = draw.draw(presets.gtsa(), 0, 0, np.arange(300), shapes).rows
    assert np.all((rows["box_y"] >= 0) & (rows["box_y"] + rows["box_h"] <= shape[0]))
    assert np.all((rows["box_x"] >= 0) & (rows["box_x"] + rows["box_w"] <= shape[1]))
    if min(shape) > 10:
        assert overlaps(rows[:, 9], rows[:, 0], shapes).min() > 0.01


def test_anchors_far_apart_get_a_crop_between_them():
    far = Crop((0.05, 0.05), (1.0, 1.0))
    near = Crop((0.02, 0.02), (1.0, 1.0), min_overlap=0.015)
    recipe = Recipe((Views("a", 2, 32, far), Views("b", 1, 32, near)))
    shapes = np.tile((400, 400), (1000, 1))
    rows = draw.draw(recipe, 0, 0, np.arange(1000), shapes).rows
    centre = {a: rows[f"box_{a}"] + rows[f"box_{s}"] / 2 for a, s in ("yh", "xw")}
    apart = (np.abs(centre["y"][:, 0] - centre["y"][:, 1]) > 150) & (
        np.abs(centre["x"][:, 0] - centre["x"][:, 1]) > 150
    )
    assert apart.sum() > 20 and np.all(rows["fallback"][apart, 2] == 1)
    for axis in "yx":
        between = (centre[axis][:, 0] + centre[axis][:, 1]) / 2
        assert np.all(np.abs(centre[axis][:, 2] - between)[apart] <= 1)
