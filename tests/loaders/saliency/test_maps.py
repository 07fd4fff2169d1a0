"""`estimate` and what surrounds the estimators: sizes, frames, bad input, threads, metadata."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers_saliency import plain, separation
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders import saliency
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.saliency import frame
from patchmill.loaders.saliency.estimate import (
    MAX_PIXELS,
    MIN_WORKING_SIDE,
    assess_map,
    working_size,
)
from patchmill.loaders.saliency.resample import resize
from patchmill.loaders.saliency.settings import MC, RBD, fingerprint

BY_HAND = ("gs", "mc", "rbd")


@pytest.mark.parametrize("method", BY_HAND)
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (8, 8), (15, 400)])
def test_tiny_pictures_have_no_map_and_say_so(method, shape):
    found = saliency.estimate(np.full((*shape, 3), 90, np.uint8), method)
    assert found.plane.shape == shape and found.plane.max() == 0
    assert found.degenerate and "pixels" in found.why


@pytest.mark.parametrize("method", BY_HAND)
@pytest.mark.parametrize("size", [32, 64, 96])
def test_small_pictures_are_magnified(method, size):
    image, mask = plain(size, size, size=0.3)
    found = saliency.estimate(image, method)
    assert found.plane.shape == (size, size)
    assert separation(found.plane, mask) > 0.5


@given(st.integers(16, 5000), st.integers(16, 5000))
def test_working_sizes_keep_the_aspect_and_their_bounds(height, width):
    h, w = working_size(height, width)
    assert h * w <= MAX_PIXELS * 1.02
    assert min(h, w) >= MIN_WORKING_SIDE - 1 or h * w > MAX_PIXELS * 0.97
    assert abs(h / w - height / width) <= 0.6 * (h / w) * (1 / h + 1 / w)


def test_usual_photos_are_worked_on_as_they_are():
    assert working_size(375, 500) == (375, 500)
    assert RBD().count(375 * 500) == 312
    assert MC().count(375 * 500) == 250
    assert 200 <= RBD().count(224 * 224) <= 250


@pytest.mark.parametrize("method", BY_HAND)
def test_huge_and_long_pictures(method):
    image, mask = plain(1500, 900)
    found = saliency.estimate(image, method, longest=256)
    assert found.plane.shape == (256, 154)
    small = resize(mask[..., None] * np.uint8(255), 256, 154)[..., 0] > 127
    assert separation(found.plane, small) > 0.5
    assert saliency.estimate(image[:20], method).plane.shape == (20, 900)


@pytest.mark.parametrize("method", BY_HAND)
def test_grey_pictures_in_every_form_give_the_same_map(method):
    image, mask = plain()
    grey = image[..., 0]
    one = saliency.estimate(grey, method)
    assert separation(one.plane, mask) > 0.5
    for same in (grey[..., None], np.repeat(grey[..., None], 3, 2)):
        assert np.array_equal(saliency.estimate(same, method).plane, one.plane)


@pytest.mark.parametrize("method", BY_HAND)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_pictures_are_degenerate(method, level):
    found = saliency.estimate(np.full((120, 160, 3), level, np.uint8), method)
    assert found.degenerate and found.why


@pytest.mark.parametrize("method", BY_HAND)
def test_noise_does_no_harm(method):
    image = np.random.default_rng(0).integers(0, 256, (140, 180, 3), np.uint8)
    found = saliency.estimate(image, method)
    assert found.plane.shape == (140, 180) and 0 <= found.confidence <= 1


def test_maps_are_degenerate_by_foreground_share_or_confidence():
    plane = np.zeros((100, 100), np.uint8)
    plane[:1] = 255
    assert "1.0%" in assess_map(plane, None).why
    plane[:95] = 255
    assert "95.0%" in assess_map(plane, None).why
    plane[:60] = 255
    plane[60:] = 0
    good = assess_map(plane, None)
    assert (good.degenerate, good.why, good.confidence) == (False, "", 1.0)
    assert good.foreground == 0.6
    plane[:] = 120
    plane[:30] = 135
    assert "confidence" in assess_map(plane, None).why


@pytest.mark.parametrize("method", BY_HAND)
def test_mirrored_pictures_have_mirrored_maps(method):
    image, _ = plain(at=(0.4, 0.6))
    found = saliency.estimate(image, method).plane.astype(int)
    for turn in (np.s_[:, ::-1], np.s_[::-1]):
        turned = saliency.estimate(image[turn], method).plane[turn]
        assert abs(turned - found).mean() < 0.04 * 255


@pytest.mark.parametrize("method", BY_HAND)
def test_many_threads_find_what_one_finds(method):
    images = [plain(130 + 7 * i, 170 - 5 * i, seed=i, at=(0.4, 0.5))[0] for i in range(6)] * 3
    estimator = saliency.estimator(method)
    alone = [estimator(image).plane for image in images]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda image: estimator(image).plane, images))
    assert all(map(np.array_equal, alone, together))


# -------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 180, 40)])
@pytest.mark.parametrize("widths", [(14, 14, 14, 14), (20, 0, 9, 0), (0, 0, 25, 25)])
def test_frames_are_cut_off_and_get_nothing(colour, widths):
    image, mask = plain()
    top, bottom, left, right = widths
    height, width = mask.shape
    framed = np.empty_like(image)
    framed[:] = colour
    inner = np.s_[top : height - bottom, left : width - right]
    framed[inner] = image[inner]
    rows, columns = frame.inside(framed, 30, 0.6)
    found = (rows.start, height - rows.stop, columns.start, width - columns.stop)
    assert all(want <= got <= want + 1 for got, want in zip(found, widths, strict=True))
    plane = saliency.estimate(framed, "rbd").plane
    outside = np.ones(mask.shape, bool)
    outside[inner] = False
    assert plane[outside].max() == 0 and separation(plane, mask) > 0.5


def test_pictures_without_a_frame_stay_whole():
    noise = np.random.default_rng(0).integers(0, 256, (200, 260, 3), np.uint8)
    for image in (plain()[0], noise, np.full((40, 60, 3), 7, np.uint8), noise[:17, :16]):
        height, width = image.shape[:2]
        assert frame.inside(image, 30, 0.6) == (slice(0, height), slice(0, width))


# ------------------------------------------------------------------------- methods and bad input


@pytest.mark.parametrize(
    "image, told",
    [
        (np.zeros((9, 9, 4), np.uint8), "4"),
        (np.zeros((9, 9, 3), np.float32), "float32"),
        (np.zeros((0, 9, 3), np.uint8), "uint8 image"),
        (np.zeros(9, np.uint8), "uint8 image"),
    ],
)
def test_arrays_that_are_not_rgb_images_are_one_sentence(image, told):
    with pytest.raises(MillError, match=told):
        saliency.estimate(image)


@pytest.mark.parametrize(
    "method, told",
    [
        ("rdb", "did you mean 'rbd'"),
        ("rbd(smoothnes=1)", "did you mean 'smoothness'"),
        ("rbd(", "cannot read"),
        ("learned", "weights"),
        ("learned(weights=3)", "must be text"),
        ("learned(weights='a.ts', size=0)", "size"),
        ("rbd(area=0)", "area must be 100"),
        ("rbd(place_sigma='far')", "place_sigma must be of type float"),
        ("mc(superpixels=10.5)", "superpixels must be of type int"),
        ("gs(remove_frame=1)", "remove_frame must be of type bool"),
    ],
)
def test_unknown_methods_and_bad_constants_are_one_sentence(method, told):
    with pytest.raises(MillError, match=told):
        saliency.estimator(method)


def test_constants_are_in_the_metadata_and_in_the_fingerprint():
    usual, other = saliency.estimator("rbd"), saliency.estimator("rbd(smoothness=0.2)")
    told = json.loads(json.dumps(other.metadata()))
    assert told["method"] == "rbd" and told["constants"]["smoothness"] == 0.2
    assert told["version"] == saliency.VERSION
    assert usual.fingerprint == fingerprint(RBD()) != other.fingerprint
    assert hash(usual.constants) == hash(RBD()) and "smoothness=0.1" in repr(RBD())
    assert len({saliency.estimator(m).fingerprint for m in BY_HAND}) == 3
    assert fingerprint(MC(steepness=8)) == fingerprint(MC(steepness=8.0))


def test_importing_it_is_light():
    told = "import sys, patchmill.loaders.saliency; print({'numba', 'torch'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@settings(deadline=None, max_examples=15)
@given(st.integers(16, 90), st.integers(16, 90), st.integers(1, 400), st.sampled_from(BY_HAND))
def test_maps_have_the_requested_size(height, width, longest, method):
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    shape = saliency.estimate(image, method, longest).plane.shape
    assert max(shape) == min(longest, max(height, width)) and min(shape) >= 1
    if longest >= max(height, width):
        assert shape == (height, width)
