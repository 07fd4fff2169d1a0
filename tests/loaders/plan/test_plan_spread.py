"""Spreads: windows of one scale at even steps, where those of training are drawn."""

import numpy as np
import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Centre, Crop, Recipe, Spread, Views, Window


def rows_of(crop, shape, size=8, count=1, id=0):
    recipe = Recipe((Views("a", count, size, crop, flip=0.0),))
    return draw.draw(recipe, 3, 0, [id], [shape]).rows[0]


@pytest.mark.parametrize(("area", "side"), [(0.25, 16), (0.2, 14)])
def test_windows_have_the_size_that_crops_have(area, side):
    rows = rows_of(Spread(4, 4, area), (32, 32), size=32)
    drawn = rows_of(Crop((area, area), (1.0, 1.0)), (32, 32), size=32)[0]
    for name in ("box_h", "box_w", "full_h", "full_w", "win_y", "win_x"):
        assert set(rows[name]) == {drawn[name]}
    assert rows["box_h"][0] == side


def test_windows_go_from_edge_to_edge_row_by_row():
    rows = rows_of(Spread(3, 4, 0.25), (32, 32))
    assert rows["box_y"].reshape(3, 4).T.tolist() == [[0, 8, 16]] * 4
    assert rows["box_x"].reshape(3, 4).tolist() == [[0, 5, 11, 16]] * 3


def test_windows_of_a_resized_image():
    rows = rows_of(Spread(2, 3, short_side=12), (60, 90))
    drawn = rows_of(Window(12), (60, 90))[0]
    for name in ("box_h", "box_w", "full_h", "full_w"):
        assert set(rows[name]) == {drawn[name]}
    assert rows["win_y"].reshape(2, 3).T.tolist() == [[0, 4]] * 3
    assert rows["win_x"].reshape(2, 3).tolist() == [[0, 5, 10]] * 2


@pytest.mark.parametrize("shape", [(375, 500), (224, 223), (40, 9)])
def test_a_single_window_is_centred(shape):
    (row,) = rows_of(Spread(1, 1, short_side=24), shape, size=20)
    assert row == rows_of(Centre(24), shape, size=20)[0]
    (row,) = rows_of(Spread(1, 1, 0.1), shape)
    spare_y, spare_x = shape[0] - row["box_h"], shape[1] - row["box_w"]
    assert abs(2 * row["box_y"] - spare_y) <= 1 and abs(2 * row["box_x"] - spare_x) <= 1


def test_windows_fit_into_any_image():
    for shape in [(1, 1), (3, 200), (200, 3), (32, 32)]:
        rows = rows_of(Spread(3, 3, 0.9), shape)
        assert (rows["box_h"] >= 1).all() and (rows["box_y"] >= 0).all()
        assert (rows["box_y"] + rows["box_h"] <= shape[0]).all()
        assert (rows["box_x"] + rows["box_w"] <= shape[1]).all()


def test_nothing_depends_on_the_image_s_number_and_several_spreads_are_alike():
    rows = rows_of(Spread(2, 2), (50, 40), count=2)
    assert len(rows) == 8 and np.array_equal(rows[:4], rows[4:])
    assert np.array_equal(rows, rows_of(Spread(2, 2), (50, 40), count=2, id=9))


def test_a_spread_survives_yaml_and_is_checked():
    recipe = Recipe((Views("a", 2, 8, Spread(2, 3, 0.5)),))
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe and recipe.total == 12
    for wrong in (Spread(0, 1), Spread(area=0.0), Spread(short_side=7)):
        with pytest.raises(MillError, match=r"rows and columns|area must|short_side must"):
            Recipe((Views("a", 1, 8, wrong),))
