"""Superpixels and their graph, each step against its formula in plain NumPy."""

import helpers_reference
import numpy as np
import pytest
from helpers_saliency import plain
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from patchmill.loaders.saliency.resample import resize
from patchmill.loaders.saliency.superpixels import graph, slic
from patchmill.loaders.saliency.superpixels.connect import enforce_connectivity
from patchmill.loaders.saliency.superpixels.lab import rgb_to_lab
from patchmill.loaders.saliency.superpixels.shortest_paths import dijkstra, floyd_warshall


def superpixels(image, count=60):
    return slic.superpixels(rgb_to_lab(image), image.shape[1], count, 20.0, 10)


def test_lab_is_that_of_the_formula_for_all_kinds_of_colours():
    codes = np.array([0, 1, 5, 10, 11, 60, 128, 200, 254, 255], np.uint8)
    image = np.stack(np.meshgrid(codes, codes, codes), -1).reshape(20, 50, 3)
    found = rgb_to_lab(image)[:, :, :50].transpose(0, 2, 1)
    np.testing.assert_allclose(found, helpers_reference.lab(image), atol=2e-3)


def test_clusters_are_those_of_plain_kmeans_in_windows():
    image, _ = plain(90, 120)
    down, across, pitch = 6, 8, 15.0
    found = slic._cluster(rgb_to_lab(image), 120, down, across, pitch, 20.0, 10)[:, :120]
    wanted = helpers_reference.slic(helpers_reference.lab(image), down, across, pitch, 20.0, 10)
    assert (found == wanted).mean() > 0.995


label_maps = st.tuples(st.integers(1, 12), st.integers(1, 15), st.integers(0, 999)).map(
    lambda drawn: np.random.default_rng(drawn[2]).integers(0, 3, drawn[:2]).astype(np.int32)
)


@settings(deadline=None)
@given(label_maps)
def test_without_a_minimal_size_labels_are_connected_components(labels):
    found, count = enforce_connectivity(labels, labels.shape[1], 0)
    wanted = np.zeros_like(labels)
    for label in range(3):
        pieces, _ = ndimage.label(labels == label)
        wanted += np.where(pieces > 0, pieces + wanted.max(), 0).astype(np.int32)
    assert count == wanted.max()
    firsts = [np.flatnonzero(found.ravel() == k)[0] for k in range(count)]
    assert firsts == sorted(firsts)
    assert all(len(np.unique(wanted[found == k])) == 1 for k in range(count))


@settings(deadline=None)
@given(label_maps, st.integers(2, 9))
def test_components_are_connected_and_none_but_the_first_is_small(labels, smallest):
    found, count = enforce_connectivity(labels, labels.shape[1], smallest)
    for k in range(count):
        assert ndimage.label(found == k)[1] == 1
        assert k == 0 or (found == k).sum() >= smallest


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (16, 16), (33, 210), (200, 300)])
def test_superpixels_cover_the_picture_with_about_the_number_asked_for(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    labels, count = superpixels(image, max(1, shape[0] * shape[1] // 300))
    assert labels.shape == shape
    assert np.array_equal(np.unique(labels), np.arange(count))
    assert count <= 4 * max(10, shape[0] * shape[1] // 300)


def test_superpixels_follow_object_edges():
    image, mask = plain()
    labels, count = superpixels(image, 120)
    share = np.bincount(labels.ravel(), mask.ravel()) / np.bincount(labels.ravel())
    assert np.minimum(share, 1 - share).max() < 0.2
    assert count > 60


@pytest.fixture(scope="module")
def made():
    image, _ = plain(120, 150)
    labels, count = superpixels(image, 50)
    return image, labels, count


def test_colours_places_and_neighbours(made):
    image, labels, count = made
    found = graph.build_graph(image, labels, count)
    colour, place, near = helpers_reference.graph(image, labels)
    np.testing.assert_allclose(found.colour_distances, colour, atol=0.02)
    np.testing.assert_allclose(found.position_distances, place, atol=1e-5)
    assert np.array_equal(found.adjacency, near)
    assert np.array_equal(
        graph.two_hop_adjacency(found.adjacency), helpers_reference.two_hops(near)
    )


@pytest.mark.parametrize("width", [1, 8, 200])
def test_the_boundary_is_what_has_a_pixel_in_the_band(made, width):
    _, labels, count = made
    assert np.array_equal(
        graph.touches_border(labels, count, width), helpers_reference.band(labels, width)
    )


def test_scales_of_the_picture(made):
    found = graph.colour_scales(graph.build_graph(*made))
    colour, _, near = helpers_reference.graph(made[0], made[1])
    np.testing.assert_allclose(found, helpers_reference.scales(colour, near), rtol=1e-3, atol=5e-3)


@given(st.integers(1, 70), st.integers(0, 10**6), st.floats(0, 30))
@settings(deadline=None)
def test_shortest_paths_are_scipys(count, seed, clip):
    draw = np.random.default_rng(seed)
    colour = helpers_reference.euclid(draw.uniform(0, 60, (count, 3))).astype(np.float32)
    near = helpers_reference.euclid(draw.uniform(0, 1, (count, 2))) < 0.25
    boundary = draw.random(count) < 0.2
    steps = graph.edge_costs(colour, near, boundary, clip)
    wanted = helpers_reference.geodesic(colour, near, boundary, clip)

    lower = np.tril_indices(count, -1)
    found = floyd_warshall(steps.copy(), 1e30)[lower]
    ways = np.isfinite(wanted[lower])
    np.testing.assert_allclose(found[ways], wanted[lower][ways], atol=1e-3)
    assert (found[~ways] >= 1e30).all()

    cut = floyd_warshall(steps.copy(), 20.0)[lower]
    short = wanted[lower] < 19.99
    np.testing.assert_allclose(cut[short], wanted[lower][short], atol=1e-3)
    assert (cut[wanted[lower] > 20.01] > 20).all()

    if boundary.any():
        cost = dijkstra(steps, boundary)
        least = wanted[boundary].min(0)
        ways = np.isfinite(least)
        np.testing.assert_allclose(cost[ways], least[ways], atol=1e-3)


@pytest.mark.parametrize("size", [(50, 70), (31, 40), (100, 140), (7, 200)])
def test_resampling_is_pillows_bilinear(size):
    from PIL import Image

    image, _ = plain(50, 70)
    found = resize(image, *size)
    wanted = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    assert abs(found.astype(int) - wanted).max() <= 1
