"""Scenes know the class, box and visible pixels of each of their objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from patchmill.loaders.files import columns
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.scenes import objects as scene_objects
from patchmill.loaders.sources.scenes import scene as scene_draw
from patchmill.loaders.sources.scenes import source as scenes
from patchmill.loaders.sources.scenes.scene import SceneSettings, make_scene
from patchmill.loaders.sources.scenes.source import Scenes

MANY = "scenes(count=24, objects=(3, 6), size=96)"


@pytest.fixture
def source() -> Scenes:
    opened = open_source(MANY)
    assert isinstance(opened, Scenes)
    return opened


def test_masks_are_disjoint_and_together_the_mask(source: Scenes) -> None:
    for i in range(len(source)):
        masks = np.stack([item.mask for item in source.objects(i)])
        assert masks.dtype == bool and masks.sum(0).max() == 1
        assert_array_equal(masks.any(0), source.mask(i) > 0)
        assert masks.any((1, 2)).all()


def test_boxes_are_tight(source: Scenes) -> None:
    for i in range(len(source)):
        for item in source.objects(i):
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= 96 and 0 <= y1 < y2 <= 96
            inside = item.mask[y1:y2, x1:x2]
            assert inside.sum() == item.mask.sum()
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_the_segmentation_agrees_with_the_objects(source: Scenes) -> None:
    for i in range(len(source)):
        segmentation = source.segmentation(i)
        assert segmentation.dtype == np.uint8 and segmentation.shape == source.mask(i).shape
        expected = np.zeros(segmentation.shape, int)
        for item in source.objects(i):
            expected[item.mask] = 1 + item.label
        assert_array_equal(segmentation, expected)


def test_the_main_object_comes_first(source: Scenes) -> None:
    assert source.labels is not None
    for i in range(len(source)):
        main, *others = source.objects(i)
        assert main.label == source.labels[i]
        assert all(main.mask.sum() > item.mask.sum() for item in others)


def test_a_scene_holds_objects_of_several_classes(source: Scenes) -> None:
    by_scene = [[item.label for item in source.objects(i)] for i in range(len(source))]
    counts = list(map(len, by_scene))
    assert max(counts) == 6 and 3 < np.mean(counts) < 5
    assert np.mean([len(set(labels)) > 1 for labels in by_scene]) > 0.9
    others = {label for labels in by_scene for label in labels[1:]}
    assert others == set(range(10))


def test_labels_are_those_of_the_drawn_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes recorded while drawing, with as many classes as shapes, where shape is class."""
    drawn: dict[int, int] = {}

    def recorded(canvas, object_map, number, atlas, shape, *rest):
        drawn[number] = shape
        draw(canvas, object_map, number, atlas, shape, *rest)

    draw = scene_draw.compose.draw_object
    monkeypatch.setattr(scene_draw.compose, "draw_object", recorded)
    for i in range(5):
        drawn.clear()
        scene = make_scene(SceneSettings(0, 0.0, 0.0, False, (2, 9), 10, 64), i)
        assert dict(enumerate(scene.object_labels, 1)) == drawn
        assert scene.label == scene.object_labels[0]


def test_hidden_objects_are_left_out() -> None:
    object_map = np.array([[0, 3, 3], [1, 1, 3]], np.uint8)
    first, second = scene_objects.visible(object_map, [7, 5, 2])
    assert (first.label, first.box) == (7, (0, 1, 2, 2))
    assert (second.label, second.box) == (2, (1, 0, 3, 2))
    assert_array_equal(second.mask, object_map == 3)
    assert_array_equal(scene_objects.segmentation(object_map, [7, 5, 2]), [[0, 3, 3], [8, 8, 3]])
    assert scene_objects.visible(np.zeros((2, 2), np.uint8), [4]) == []


def test_a_smaller_map_has_the_objects_that_cover_half_a_block() -> None:
    blocks = {
        (0, 0, 0, 0): 0,
        (0, 0, 0, 1): 0,
        (0, 0, 1, 2): 1,  # half is covered; the nearest of equals
        (2, 0, 2, 1): 2,
        (3, 3, 1, 3): 3,
    }
    tall = np.concatenate([np.reshape(block, (2, 2)) for block in blocks]).astype(np.uint8)
    assert_array_equal(scene_objects.shrink(tall, 2).ravel(), list(blocks.values()))
    assert_array_equal(scene_objects.shrink(np.zeros((4, 4), np.uint8), 2), np.zeros((2, 2)))


@pytest.mark.parametrize("size", [16, 33, 100])
def test_a_smaller_map_has_the_foreground_that_covers_half_of_a_pixel(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted = []

    def recorded(object_map: np.ndarray, factor: int) -> np.ndarray:
        painted.append((object_map, factor))
        return shrink(object_map, factor)

    shrink = scene_objects.shrink
    monkeypatch.setattr(scene_objects, "shrink", recorded)
    for i in range(4):
        scene = make_scene(SceneSettings(3, 0.0, 0.0, False, (4, 9), 10, size), i)
        fine, factor = painted.pop()
        coverage = (fine > 0).reshape(size, factor, size, factor).mean((1, 3))
        assert_array_equal(scene.object_map > 0, coverage >= 0.5)
        assert scene.object_map.max() > 1


# --------------------------------------------------------------------------------------- the cache


def content(source: Scenes) -> list[object]:
    return [
        [source.read(i), source.mask(i).tolist(), source.segmentation(i).tolist()]
        + [(item.label, item.box, item.mask.tolist()) for item in source.objects(i)]
        for i in range(len(source))
    ]


def test_objects_come_from_the_cache_when_opened_again(
    source: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_draw, "make_scene", lambda *_: pytest.fail("painted again"))
    assert content(Scenes(count=24, objects=(3, 6), size=96)) == content(source)


def test_parts_of_an_earlier_kind_are_painted_again(
    source: Scenes, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(source)
    (path,) = cache_folder.rglob("*.scenes")
    part = columns.read(path, scenes.KIND)
    earlier = {name: part[name] for name in ("jpegs", "jpeg_starts", "labels", "backgrounds")}
    columns.write(path, "scenes 2", earlier, part.meta)
    again = Scenes(count=24, objects=(3, 6), size=96)
    assert content(again) == before and again.fingerprint == source.fingerprint


def test_the_fingerprint_stays_while_the_scenes_stay() -> None:
    assert Scenes(count=2, size=64).fingerprint == "028b6cc135d48c85-2"


def test_there_is_no_object_beyond_the_last_scene(source: Scenes) -> None:
    for read in (source.objects, source.segmentation):
        with pytest.raises(IndexError, match="no scene 24 among 24"):
            read(24)
