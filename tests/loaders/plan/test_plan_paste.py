"""Copy-paste: DiLo's rates, independent views, and no effect on other draws."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from patchmill.kernels.views.decisions import ON_GREY, ON_IMAGE, ON_TEXTURE, PASTE_NEVER, ROW
from patchmill.loaders import presets
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import CopyPaste, Grid, Recipe, Views

FIELDS = ["paste", "background", "mask_sigma", "background_y", "background_x"]


def rows_of(recipe: Recipe, count: int = 20_000) -> np.ndarray:
    return draw.draw(recipe, 5, 1, np.arange(count), np.tile((60, 80), (count, 1))).rows


def test_the_rates_are_dilos():
    rows = rows_of(presets.dilo(), 50_000)
    pasted = rows["paste"] == ON_GREY
    assert rows.size == 100_000 and np.all(pasted | (rows["paste"] == PASTE_NEVER))
    assert abs(pasted.mean() - 0.3) < 0.005
    assert abs(np.mean(pasted.any(1)) - 0.51) < 0.01
    assert abs(np.mean(rows["mask_sigma"][pasted] > 0) - 0.5) < 0.01
    np.testing.assert_allclose(np.unique(rows["mask_sigma"]), [0, 5 * 80 / 500])
    for name in FIELDS:
        assert not rows[name][~pasted].any()


def test_the_blur_of_a_mask_scales_with_its_image():
    """5 pixels, as released, for photos whose longer side is 500, and the same view of others."""
    recipe = presets.dilo(paste=1)
    for shape, sigma in (((500, 333), 5), ((375, 500), 5), ((32, 32), 0.32), ((3000, 4000), 40)):
        rows = draw.draw(recipe, 5, 1, np.arange(50), np.tile(shape, (50, 1))).rows
        np.testing.assert_allclose(np.unique(rows["mask_sigma"]), [0, sigma], rtol=1e-6)


def test_levels_are_uniform_from_0_to_254():
    rows = rows_of(presets.dilo(paste=1))
    counts = np.bincount(rows["background"].ravel())
    assert counts.size == 255 and stats.chisquare(counts).pvalue > 0.01


def test_views_are_pasted_independently():
    rows = rows_of(presets.dilo(paste=0.5))
    both = np.histogram2d(*(rows["paste"].T > 0), bins=2)[0]
    assert stats.chi2_contingency(both).pvalue > 0.001
    pasted = rows[(rows["paste"] > 0).all(1)]
    for name in ("background", "mask_sigma", "background_y"):
        assert abs(np.corrcoef(pasted[name].T)[0, 1]) < 5 / len(pasted) ** 0.5
    first = Views("a", 2, 32, paste=CopyPaste((1.0, 0.0)))
    rows = rows_of(Recipe((first,)), 100)
    assert rows["paste"][:, 0].all() and not rows["paste"][:, 1].any()


def test_textures_have_seeds_and_images_have_positions():
    rows = rows_of(presets.dilo(paste=1, background="texture"))
    assert np.all(rows["paste"] == ON_TEXTURE) and np.all(rows["background"] >= 0)
    assert len(np.unique(rows["background"])) > 0.999 * rows.size
    rows = rows_of(presets.dilo(paste=1, background="images"))
    assert np.all(rows["paste"] == ON_IMAGE)
    for name in ("background_y", "background_x"):
        assert stats.kstest(rows[name][:, 0], "uniform", (0, 0.5)).pvalue > 0.01


@pytest.mark.parametrize("name", ["moco_v2", "gtsa", "selfie"])
def test_no_other_draw_changes(name):
    plain = presets.ALL[name]()
    groups = tuple(replace(group, paste=CopyPaste(0.9)) for group in plain.views)
    with_paste, without = rows_of(Recipe(groups), 200), rows_of(plain, 200)
    for field in ROW.names:
        if field not in FIELDS:
            assert np.array_equal(with_paste[field], without[field])
    assert with_paste["paste"].any() and not any(without[field].any() for field in FIELDS)


def test_cells_of_a_grid_share_their_background():
    rows = rows_of(Recipe((Views("a", 2, 8, Grid(2, 2), paste=CopyPaste()),)), 100)
    for grid in (rows[:, :4], rows[:, 4:]):
        for field in FIELDS:
            assert np.all(grid[field] == grid[field][:, :1])
    assert np.any(rows["paste"][:, 0] != rows["paste"][:, 4])


def test_background_candidates_are_uniform_over_the_other_samples():
    seed, count = np.uint64(2**64 - 1), 7
    found = np.array([[draw.background_candidate(seed, epoch, 3, count) for epoch in range(6000)]])
    counts = np.bincount(found.ravel(), minlength=count)
    assert counts[3] == 0 and stats.chisquare(np.delete(counts, 3)).pvalue > 0.01
    assert {draw.background_candidate(seed, 0, id, 2) for id in (0,)} == {1}
    assert (
        draw.background_candidate(seed, 0, 1, 2) == 0
        and draw.background_candidate(seed, 0, 0, 1) == 0
    )
    many = [draw.background_candidate(np.uint64(0), 0, id, 2**31) for id in range(1000)]
    assert len(set(many)) > 990 and max(many) < 2**31
    assert draw.background_candidate(np.uint64(0), 1, 5, 2**31) != draw.background_candidate(
        np.uint64(1), 0, 5, 2**31
    )


def test_backgrounds_from_another_data_set_are_uniform():
    found = [draw.background_id(np.uint64(3), epoch, 3, 7) for epoch in range(6000)]
    assert stats.chisquare(np.bincount(found, minlength=7)).pvalue > 0.01
    assert draw.background_id(np.uint64(3), 0, 0, 1) == 0
