"""GS, MC and RBD against their formulas, and what they find in pictures that are easy."""

import helpers_reference
import numpy as np
import pytest
from helpers_saliency import f_measure, mae, plain, separation
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders import saliency
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.saliency.estimators import geodesic, markov_chain, robust_background
from patchmill.loaders.saliency.estimators.cholesky import ldlt_factor, ldlt_solve
from patchmill.loaders.saliency.settings import GS, MC, RBD
from patchmill.loaders.saliency.superpixels import slic
from patchmill.loaders.saliency.superpixels.graph import (
    FAR,
    build_graph,
    colour_scales,
    edge_costs,
    touches_border,
)
from patchmill.loaders.saliency.superpixels.lab import rgb_to_lab
from patchmill.loaders.saliency.superpixels.shortest_paths import floyd_warshall
from patchmill.loaders.saliency.thresholds import (
    ambiguity,
    ambiguity_of_histogram,
    minmax_normalise,
    otsu,
)
from patchmill.loaders.sources.scenes.source import Scenes

BY_HAND = ("gs", "mc", "rbd")


@pytest.fixture(scope="module", params=["plain", "busy", "framed"])
def made(request):
    image, _ = plain(150, 190, at=(0.45, 0.6))
    if request.param == "busy":
        draw = np.random.default_rng(1)
        patches = draw.integers(-60, 60, (10, 10, 3)).repeat(15, 0).repeat(19, 1)
        image = np.clip(image.astype(int) + patches, 0, 255).astype(np.uint8)
    if request.param == "framed":
        image = np.pad(image[9:-9, 9:-9], ((9, 9), (9, 9), (0, 0)))
    labels, count = slic.superpixels(rgb_to_lab(image), 190, 130, 20.0, 10)
    return image, labels, count


def test_rbd_is_its_formula(made):
    wanted = helpers_reference.rbd(*made[:2], otsu)
    found, connectivity = robust_background.robust_background_saliency(
        build_graph(*made), made[1], RBD()
    )
    assert connectivity == pytest.approx(wanted["con"].mean(), rel=1e-3)
    np.testing.assert_allclose(found, wanted["map"], atol=5e-3)


def test_boundary_connectivity_is_its_formula(made):
    graph, boundary = build_graph(*made), touches_border(made[1], made[2], 8)
    scale = colour_scales(graph)
    paths = floyd_warshall(
        edge_costs(graph.colour_distances, graph.adjacency, boundary, scale.clip),
        3 * scale.geodesic,
    )
    found = robust_background.boundary_connectivity(paths, boundary, scale.geodesic)
    np.testing.assert_allclose(found, helpers_reference.rbd(*made[:2], otsu)["con"], rtol=5e-3)


def test_objects_have_less_boundary_connectivity_than_backgrounds():
    image, mask = plain()
    labels, count = slic.superpixels(rgb_to_lab(image), 260, 120, 20.0, 10)
    graph, boundary = build_graph(image, labels, count), touches_border(labels, count, 8)
    paths = floyd_warshall(
        edge_costs(graph.colour_distances, graph.adjacency, boundary, colour_scales(graph).clip),
        FAR,
    )
    connectivity = robust_background.boundary_connectivity(
        paths, boundary, colour_scales(graph).geodesic
    )
    share = np.bincount(labels.ravel(), mask.ravel()) / np.bincount(labels.ravel())
    assert connectivity[share > 0.9].max() < 1 < connectivity[share < 0.1].min()


def test_gs_is_its_formula(made):
    np.testing.assert_allclose(
        geodesic.geodesic_saliency(build_graph(*made), made[1], GS())[0],
        helpers_reference.gs(*made[:2]),
        atol=5e-3,
    )


def test_mc_is_its_formula(made):
    np.testing.assert_allclose(
        markov_chain.markov_chain_saliency(build_graph(*made), made[1], MC())[0],
        helpers_reference.mc(*made[:2]),
        atol=5e-3,
    )


def test_mc_gives_an_artificial_frame_no_saliency():
    image, mask = plain(150, 190)
    image = np.pad(image[12:-12, 12:-12], ((12, 12), (12, 12), (0, 0)))
    found = saliency.estimate(image, "mc(remove_frame=False)").plane
    assert found[:6].max() == 0 and separation(found, mask) > 0.5


@given(st.integers(1, 60), st.integers(0, 10**6))
@settings(deadline=None)
def test_ldlt_solutions_match_numpy(count, seed):
    draw = np.random.default_rng(seed)
    half = draw.normal(size=(count, count))
    matrix = half @ half.T + 0.1 * np.eye(count)
    right = draw.normal(size=count)
    found = ldlt_solve(ldlt_factor(np.tril(matrix)), right)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-6, atol=1e-8)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=300).filter(lambda v: max(v) - min(v) > 1e-3))
@settings(deadline=None)
def test_otsu_threshold_is_that_of_scikit_image(values):
    filters = pytest.importorskip("skimage.filters")
    values = np.array(values)
    assert otsu(values) == pytest.approx(filters.threshold_otsu(values), abs=1e-6)


def test_ambiguity_is_one_for_black_and_white_and_five_for_grey():
    assert ambiguity(np.array([0.0, 1.0, 1.0])) == 1
    assert ambiguity(np.array([0.45, 0.55])) == 5
    values = np.random.default_rng(0).integers(0, 256, 999)
    assert ambiguity(values / 255) == pytest.approx(helpers_reference.mc_score(values / 255))
    levels = np.bincount(values, minlength=256)
    assert ambiguity_of_histogram(levels) == pytest.approx(ambiguity(values / 255.001), abs=0.02)


def test_constant_maps_normalise_to_zero():
    assert minmax_normalise(np.full(9, 0.7)).max() == 0
    np.testing.assert_array_equal(minmax_normalise(np.array([2.0, 4.0, 3.0])), [0, 1, 0.5])


# ----------------------------------------------------------------------------- what they find


@pytest.mark.parametrize("method", BY_HAND)
@pytest.mark.parametrize(
    "place", [(0.5, 0.5), (0.4, 0.35), (0.75, 0.5), (0.5, 0.2)], ids=["mid", "off", "low", "left"]
)
def test_plain_objects_are_found_even_at_the_border(method, place):
    image, mask = plain(at=place)
    found = saliency.estimate(image, method)
    assert separation(found.plane, mask) >= 0.5
    assert not found.degenerate
    assert abs(found.foreground - mask.mean()) < 0.1


# Per method: least mean separation, least mean F-measure, largest mean MAE. Regression bounds, a
# little beyond what was found.
EXPECTED = {
    "gs": (0.42, 0.74, 0.2),
    "mc": (0.39, 0.76, 0.2),
    "rbd": (0.5, 0.8, 0.15),
}


@pytest.mark.parametrize("method", BY_HAND)
def test_scenes_are_found_as_well_as_they_were(method, tmp_path, monkeypatch):
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path))
    scenes = Scenes(24, seed=5)
    planes = [saliency.estimate(decode(scenes.read(i)), method).plane for i in range(24)]
    masks = [scenes.mask(i) > 0 for i in range(24)]
    pairs = list(zip(planes, masks, strict=True))
    least, f, error = EXPECTED[method]
    assert np.mean([separation(*pair) for pair in pairs]) > least
    assert np.mean([f_measure(*pair) for pair in pairs]) > f
    assert np.mean([mae(*pair) for pair in pairs]) < error
