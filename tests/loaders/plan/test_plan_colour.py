"""Distributions of flips, turns, colour, blur and solarise."""

import itertools

import numpy as np
import pytest
from scipy import stats

from patchmill.kernels.views.decisions import GREY_FIRST, GREY_LAST, GREY_NEVER, NO_JITTER
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Blur, Colour, Recipe, Views

N = 20_000


def rows_of(**settings) -> np.ndarray:
    recipe = Recipe((Views("a", settings.pop("count", 1), 32, **settings),))
    return draw.draw(recipe, 11, 2, np.arange(N), np.tile((60, 80), (N, 1))).rows


def happens(events: np.ndarray, chance: float) -> bool:
    return stats.binomtest(int(events.sum()), events.size, chance).pvalue > 0.001


def test_flips_and_solarise_have_a_probability_per_view():
    rows = rows_of(count=3, flip=(0.0, 0.3, 1.0), solarise=(1.0, 0.2, 0.0))
    assert not rows["flip"][:, 0].any() and rows["flip"][:, 2].all()
    assert happens(rows["flip"][:, 1], 0.3)
    assert rows["solarise"][:, 0].all() and not rows["solarise"][:, 2].any()
    assert happens(rows["solarise"][:, 1], 0.2)


def test_turns_are_uniform_if_enabled():
    counts = np.bincount(rows_of(turns=True)["turns"].ravel())
    assert counts.size == 4 and stats.chisquare(counts).pvalue > 0.01
    assert not rows_of(turns=False)["turns"].any()


def test_jitter_applies_all_operations_or_none():
    rows = rows_of(colour=Colour(0.4, 0.4, 0.2, 0.1, p=0.8))[:, 0]
    jittered = rows["order"] != NO_JITTER
    assert happens(jittered, 0.8)
    plain = rows[~jittered]
    for name, identity in [("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)]:
        assert np.all(plain[name] == identity)
        assert np.mean(rows[name][jittered] == identity) < 0.001


def test_factors_are_uniform_and_never_negative():
    rows = rows_of(colour=Colour(0.4, 1.5, 0.8, 0.2, p=1.0))[:, 0]
    for name, low, high in [
        ("brightness", 0.6, 1.4),
        ("contrast", 0.0, 2.5),
        ("saturation", 0.2, 1.8),
        ("hue", -0.2, 0.2),
    ]:
        assert stats.kstest(rows[name], "uniform", (low, high - low)).pvalue > 0.01, name


def test_an_operation_without_strength_is_the_identity():
    rows = rows_of(colour=Colour(0.4, 0.0, 0.0, 0.0, p=1.0))[:, 0]
    assert np.all(rows["contrast"] == 1) and np.all(rows["hue"] == 0)
    assert np.all(rows_of(colour=Colour(p=1.0))["order"] == NO_JITTER)


def test_all_24_orders_are_equally_likely():
    orders, counts = np.unique(rows_of(colour=Colour(hue=0.1, p=1.0))["order"], return_counts=True)
    assert stats.chisquare(counts).pvalue > 0.01
    digits = {tuple(order >> 2 * i & 3 for i in range(4)) for order in orders.tolist()}
    assert digits == set(itertools.permutations(range(4)))


@pytest.mark.parametrize(("first", "value"), [(False, GREY_LAST), (True, GREY_FIRST)])
def test_grey_has_its_probability_and_position(first, value):
    grey = rows_of(colour=Colour(hue=0.1, grey=0.2, grey_first=first))["grey"]
    assert set(np.unique(grey)) == {GREY_NEVER, value}
    assert happens(grey == value, 0.2)


def test_blur_has_its_probability_and_a_uniform_sigma():
    rows = rows_of(count=2, blur=Blur((1.0, 0.1), (0.1, 2.0)))
    assert np.all(rows["sigma"][:, 0] > 0) and happens(rows["sigma"][:, 1] > 0, 0.1)
    assert stats.kstest(rows["sigma"][:, 0], "uniform", (0.1, 1.9)).pvalue > 0.01
    assert not rows["radius"][rows["sigma"] == 0].any()


def test_blur_reaches_three_sigma_or_as_far_as_its_kernel():
    rows = rows_of(blur=Blur(1.0, (0.1, 2.0)))
    assert np.all(rows["radius"] == np.ceil(3 * rows["sigma"].astype(np.float64)))
    assert set(np.unique(rows["radius"])) == {1, 2, 3, 4, 5, 6}
    assert np.all(rows_of(blur=Blur(1.0, kernel=9))["radius"] == 4)


def test_without_augmentations_rows_are_neutral():
    row = rows_of(flip=0.0)[0, 0]
    for name in ("flip", "turns", "grey", "sigma", "radius", "solarise", "fallback"):
        assert row[name] == 0
    assert row["order"] == NO_JITTER
