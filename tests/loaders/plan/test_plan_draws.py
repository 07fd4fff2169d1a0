"""Draws are pure, independent and within bounds; invalid arguments are refused."""

import itertools

import numpy as np
import pytest
from helpers_recipes import recipes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from patchmill.kernels.views.decisions import GREY_FIRST, NO_JITTER, ROW
from patchmill.loaders import presets
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Blur, Colour, Recipe, Shift, Views, Window

side = st.integers(1, 40) | st.sampled_from([375, 500, 4000, 65_535])
DINO = presets.dino()
BUSY = Recipe(
    (
        Views(
            "a",
            3,
            16,
            Window(64),
            turns=True,
            colour=Colour(0.4, 0.4, 0.4, 0.1, p=1.0, grey=0.5),
            blur=Blur(1.0),
            solarise=0.5,
        ),
    )
)
FIELDS = ["win_y", "win_x", "flip", "turns", "order", "brightness", "contrast", "saturation"]
FIELDS += ["hue", "grey", "sigma", "solarise"]


@settings(max_examples=150, deadline=None)
@given(recipes(), st.integers(0, 2**64 - 1), st.integers(0, 2**62), side, side)
def test_views_lie_within_the_image_whatever_the_recipe(recipe, seed, id, height, width):
    rows = draw.draw(recipe, seed, 0, [id], [(height, width)]).rows[0]
    size = np.concatenate([[group.size] * group.total for group in recipe.views])
    pad = [getattr(getattr(g.crop, "of", g.crop), "pad", 0) for g in recipe.views]
    pad = np.repeat(pad, [group.total for group in recipe.views])
    for y, h, side in (("box_y", "box_h", height), ("box_x", "box_w", width)):
        assert np.all((rows[y] >= 0) & (rows[h] >= 1) & (rows[y] + rows[h] <= side))
    for corner, full in (("win_y", "full_h"), ("win_x", "full_w")):
        assert np.all((rows[corner] >= -pad) & (rows[corner] + size <= rows[full] + pad))
    assert np.all((rows["turns"] >= 0) & (rows["turns"] < 4))
    assert np.all((rows["order"] >= NO_JITTER) & (rows["order"] < 256))
    assert np.all((rows["grey"] >= 0) & (rows["grey"] <= GREY_FIRST))
    assert np.all((np.abs(rows["hue"]) <= 0.5) & (rows["brightness"] >= 0))
    assert np.all((rows["radius"] >= 0) & (rows["radius"] <= 30))
    assert np.all((rows["sigma"] >= 0) & (rows["sigma"] <= 10))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_plans_do_not_depend_on_the_batch(ids, epoch):
    shapes = np.array([(100 + id % 300, 80 + id % 200) for id in ids])
    whole = draw.draw(DINO, 3, epoch, ids, shapes).rows
    backwards = draw.draw(DINO, 3, epoch, ids[::-1], shapes[::-1]).rows
    assert np.all(whole == backwards[::-1])
    alone = draw.draw(DINO, 3, epoch, ids[:1], shapes[:1]).rows
    assert np.all(whole[0] == alone[0])


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 1, 2**64 - 1])
@pytest.mark.parametrize("name", sorted(presets.ALL))
def test_threads_draw_what_batches_draw(name, seed):
    recipe = presets.ALL[name]()
    whole = draw.draw(recipe, seed, 5, [9, 2**62], [(300, 200), (300, 200)]).rows
    for id, expected in zip([9, 2**62], whole, strict=True):
        rows = np.empty(recipe.total, ROW)
        rows.view(np.uint8)[:] = 0xAB  # every field is written, nothing is read
        draw.draw_into(draw.law_table(recipe), np.uint64(seed), 5, id, 300, 200, rows)
        assert rows.tobytes() == expected.tobytes()


def test_views_keep_their_draws_when_others_are_added():
    shapes = np.tile((300, 400), (50, 1))
    few, many = (
        draw.draw(presets.dino(local_crops=n), 0, 0, np.arange(50), shapes).rows for n in (2, 9)
    )
    assert np.all(few == many[:, :4])


def test_seeds_epochs_and_ids_of_any_size_all_count():
    def row(seed=1, epoch=1, id=1):
        return draw.draw(BUSY, seed, epoch, [id], [(80, 80)]).rows[0, 0].tobytes()

    keys = [{"seed": 2**k} for k in range(64)]
    keys += [{"epoch": 2**k} for k in range(32)]
    keys += [{"id": 2**k} for k in range(63)]
    assert len({row(**key) for key in keys}) == len(keys) - 2  # 1 is there three times


def test_fields_views_epochs_seeds_and_neighbours_are_independent():
    n = 10_000
    shapes = np.tile((90, 90), (n + 1, 1))
    draws = {
        (seed, epoch): draw.draw(BUSY, seed, epoch, np.arange(n + 1), shapes).rows
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (2**32, 0)]
    }
    columns = [rows[:n, view][f] for rows in draws.values() for view in range(3) for f in FIELDS]
    columns += [draws[0, 0][1:, view][f] for view in range(3) for f in FIELDS]
    correlation = np.corrcoef(np.array(columns, np.float64)) - np.eye(len(columns))
    assert np.abs(correlation).max() < 5 / n**0.5


def test_pairs_of_draws_fill_the_plane_evenly():
    rows = draw.draw(BUSY, 0, 0, np.arange(20_000), np.tile((90, 90), (20_000, 1))).rows
    bins = [np.linspace(0.6, 1.4, 17)] * 2
    pairs = [
        (rows["brightness"][:, a], rows[name][:, b])
        for a, b in itertools.product(range(3), repeat=2)
        for name in ("brightness", "contrast")
        if (a, "brightness") != (b, name)
    ]
    pairs.append((rows["brightness"][:-1, 0], rows["brightness"][1:, 0]))
    worst = min(stats.chisquare(np.histogram2d(x, y, bins)[0].ravel()).pvalue for x, y in pairs)
    assert worst > 0.001


def test_plan_lists_groups_and_targets():
    drawn = draw.draw(DINO, 0, 0, [1, 2], [(30, 40), (50, 60)])
    assert drawn.rows.shape == (2, 10) and drawn.rows.dtype == ROW
    assert drawn.shapes.tolist() == [[30, 40], [50, 60]]
    assert np.all(drawn.group("local") == drawn.rows[:, 2:])
    with pytest.raises(MillError, match="no view group 'lokal'"):
        drawn.group("lokal")
    first, second = draw.targets(DINO)
    assert (first.name, first.count, first.size, first.bicubic) == ("global", 2, 224, True)
    assert (second.name, second.count, second.size) == ("local", 8, 96)
    cells = Recipe((Views("a", 2, 8, presets.selfie().views[0].crop),))
    assert draw.targets(cells)[0].count == 32


def test_no_samples_make_an_empty_plan():
    assert draw.draw(DINO, 0, 0, [], []).rows.shape == (0, 10)


def test_law_tables_are_cached_and_read_only():
    assert draw.law_table(presets.dino()) is draw.law_table(presets.dino())
    with pytest.raises(ValueError):
        draw.law_table(DINO)["flip"] = 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"seed": -1}, "the seed must be 0 to .* not -1"),
        ({"seed": 2**64}, "the seed must be"),
        ({"epoch": -1}, "the epoch must be 0 to .* not -1"),
        ({"epoch": 2**32}, "the epoch must be"),
        ({"ids": [-1, 3]}, "sample ids must be whole numbers from 0 .* not -1"),
        ({"ids": [0, 2**62 + 1]}, "sample ids must be whole numbers"),
        ({"ids": [0, 0.5]}, "sample ids must be whole numbers"),
        ({"ids": [[0, 1]]}, "sample ids must be a list"),
        ({"shapes": [(10, 10), (0, 10)]}, "height and width .* not 0"),
        ({"shapes": [(10, 10), (10, -3)]}, "height and width .* not -3"),
        ({"shapes": [(10, 10), (10, 131_072)]}, "height and width .* not 131072"),
        ({"shapes": [(10, 10), (10, 10.5)]}, "height and width"),
        ({"shapes": [(10, 10)]}, "2 samples need as many"),
        ({"shapes": [(10, 10, 3), (10, 10, 3)]}, "2 samples need as many"),
        ({"shapes": []}, "2 samples need as many"),
    ],
)
def test_invalid_arguments_are_refused(arguments, complaint):
    given = {"seed": 0, "epoch": 0, "ids": [0, 1], "shapes": [(10, 10), (10, 10)]} | arguments
    with pytest.raises(MillError, match=complaint):
        draw.draw(DINO, **given)


def test_the_largest_images_fit():
    recipe = Recipe((Views("a", 1, 8, Window(16_384)), Views("b", 1, 8, Shift(8))))
    row = draw.draw(recipe, 0, 0, [0], [(1, draw.MAX_SIDE)]).rows[0, 0]
    assert row["full_w"] == 16_384 * draw.MAX_SIDE
    assert 0 <= row["win_x"] <= row["full_w"] - 8
