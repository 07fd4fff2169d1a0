"""Grids: cells are windows of one view, cut after it was cropped and mirrored."""

import numpy as np
import pytest
from scipy import stats

from patchmill.loaders import presets
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Blur, Centre, Colour, Crop, Grid, Recipe, Shift, Views, Window

SHAPE = (24, 24)  # of the image; views of 24 pixels need no resizing
IMAGE = np.arange(1, SHAPE[0] * SHAPE[1] + 1).reshape(SHAPE)


def show(row: np.ndarray, height: int, width: int) -> np.ndarray:
    """The window of an image that needs no resizing; 0 outside it."""
    assert (row["full_h"], row["full_w"]) == (row["box_h"], row["box_w"])
    y, x = row["box_y"], row["box_x"]
    full = IMAGE[y : y + row["box_h"], x : x + row["box_w"]]
    padded = np.pad(full, 64)
    y, x = row["win_y"] + 64, row["win_x"] + 64
    view = padded[y : y + height, x : x + width]
    return view[:, ::-1] if row["flip"] else view


SMALL_GRIDS = [(2, 3, 5), (1, 4, 4), (3, 1, 8)]


@pytest.mark.parametrize(
    ("law", "rows", "columns", "size"),
    [
        (Shift(4), 4, 4, 6),
        (Crop((1.0, 1.0), (1.0, 1.0)), 3, 3, 8),
        *((Window(24), *grid) for grid in SMALL_GRIDS),
        *((Centre(24), *grid) for grid in SMALL_GRIDS),
    ],
)
def test_cells_cut_the_mirrored_view(law, rows, columns, size):
    recipe = Recipe((Views("a", 2, size, Grid(rows, columns, law)),))
    cells = draw.draw(recipe, 0, 0, np.arange(40), [SHAPE] * 40).rows
    assert cells.shape == (40, 2 * rows * columns)
    assert 0 < cells["flip"].mean() < 1
    for image in range(40):
        for grid in cells[image].reshape(2, rows, columns):
            whole = grid[0, 0].copy()  # the view that the cells are cut from
            whole["win_x"] -= whole["flip"] * (columns - 1) * size
            view = show(whole, rows * size, columns * size)
            cut = np.block([[show(cell, size, size) for cell in line] for line in grid])
            assert np.array_equal(cut, view)


def test_a_grid_s_view_is_drawn_as_any_other_of_its_size():
    law = Crop((0.3, 1.0))
    shapes = np.random.default_rng(0).integers(50, 90, (200, 2))
    grid = Recipe((Views("a", 1, 8, Grid(3, 3, law)),))
    whole = Recipe((Views("a", 1, 24, law),))
    grid, whole = (draw.draw(r, 4, 1, np.arange(200), shapes).rows for r in (grid, whole))
    for name in ("box_y", "box_x", "box_h", "box_w", "full_h", "full_w", "flip", "fallback"):
        assert np.all(grid[name] == whole[name])
    assert set(np.unique(grid["win_x"])) == {0, 8, 16}


def test_cells_have_independent_colours():
    colour = Colour(0.4, 0.4, 0.4, 0.1, p=1.0)
    views = Views("a", 1, 8, Grid(2, 2), colour=colour, blur=Blur(0.5), solarise=0.5)
    rows = draw.draw(Recipe((views,)), 0, 0, np.arange(4000), [(50, 60)] * 4000).rows
    for name in ("brightness", "hue", "order", "grey", "sigma", "solarise"):
        correlation = np.corrcoef(rows[name].T) - np.eye(4)
        assert np.abs(correlation).max() < 5 / 4000**0.5, name


def test_probabilities_are_per_grid_not_per_cell():
    views = Views("a", 2, 8, Grid(1, 3), flip=(0.0, 1.0), solarise=(1.0, 0.0))
    rows = draw.draw(Recipe((views,)), 0, 0, [0], [(50, 60)]).rows[0]
    assert rows["flip"].tolist() == [0, 0, 0, 1, 1, 1]
    assert rows["solarise"].tolist() == [1, 1, 1, 0, 0, 0]


def test_grids_of_one_image_are_drawn_independently():
    views = Views("a", 2, 8, Grid(2, 2, Shift(4)))
    rows = draw.draw(Recipe((views,)), 0, 0, np.arange(5000), [(16, 16)] * 5000).rows
    first, second = rows["win_y"][:, 0] + 4, rows["win_y"][:, 4] + 4
    table = np.histogram2d(first, second, bins=9)[0]
    assert stats.chi2_contingency(table).pvalue > 0.01


def test_selfie_cuts_whole_images():
    rows = draw.draw(presets.selfie(size=224), 0, 0, [7], [(375, 500)]).rows[0]
    assert rows.size == 49 and len(np.unique(rows["flip"])) == 1
    corners = {(row["win_y"], row["win_x"]) for row in rows}
    assert corners == {(32 * y, 32 * x) for y in range(7) for x in range(7)}
    assert np.all(rows["full_h"] == 224) and np.all(rows["full_w"] == 224)
