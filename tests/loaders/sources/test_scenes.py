"""Scenes are rendered once, reproducibly, with the labels, masks and backgrounds asked for."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.scenes import palettes, shapes
from patchmill.loaders.sources.scenes import scene as scene_draw
from patchmill.loaders.sources.scenes import source as scenes
from patchmill.loaders.sources.scenes.scene import SceneSettings, make_scene
from patchmill.loaders.sources.scenes.source import Scenes

PLAIN = SceneSettings(0, 0.0, 0.0, False, (1, 3), 10, None)


def settings_with(**changes: object) -> SceneSettings:
    return SceneSettings(**{**vars(PLAIN), **changes})  # type: ignore[arg-type]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_scenes_are_photos_with_labels_and_masks() -> None:
    source = Scenes(count=20)
    assert len(source) == 20 and source.name == "scenes:20"
    assert source.labels is not None and source.labels.dtype == np.int64
    assert source.classes == list(shapes.SHAPES) and set(source.labels) <= set(range(10))
    density = []
    for i in range(20):
        photo, mask = pixels(source.read(i)), source.mask(i)
        assert photo.shape[:2] == mask.shape and mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        assert 0.03 < (mask > 0).mean() < 0.8
        density.append(len(source.read(i)) / mask.size)
    assert 0.3 < np.mean(density) < 0.8  # bytes for a pixel, as in photos
    with pytest.raises(IndexError):
        source.read(20)


def test_a_scene_depends_on_the_settings_and_its_number_alone(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Scenes(count=3, size=32)
    monkeypatch.setenv("PATCHMILL_CACHE", str(cache_folder / "other"))
    more = Scenes(count=5, size=32)
    assert [few.read(i) for i in range(3)] == [more.read(i) for i in range(3)]
    assert more.read(0) != more.read(1) != Scenes(count=5, size=32, seed=1).read(1)
    assert few.fingerprint != more.fingerprint
    assert more.fingerprint == Scenes(count=5, size=32).fingerprint


def test_the_label_is_the_class_of_the_largest_object() -> None:
    for i in range(40):
        scene = make_scene(settings_with(size=256, objects=(3, 5)), i)
        areas = np.bincount(scene.object_map.ravel(), minlength=3)[1:]
        assert areas[0] == areas.max() > 0


@pytest.mark.parametrize("kind", range(10))
def test_shapes_stay_within_their_bounding_radius(kind: int) -> None:
    for angle in np.linspace(0, 2 * np.pi, 400):
        radius = shapes.MAX_RADIUS[kind]
        distance, _ = shapes.signed_distance(kind, radius * np.cos(angle), radius * np.sin(angle))
        assert distance > 0


def test_the_mask_covers_the_objects() -> None:
    """The same scene with another background differs outside the mask, and hardly inside."""
    there, here = (
        settings_with(size=200, background_bias=1.0),
        settings_with(size=200, swap_backgrounds=True),
    )
    for i in range(6):
        first, second = make_scene(there, i), make_scene(here, i)
        np.testing.assert_array_equal(first.object_map, second.object_map)
        change = np.abs(pixels(first.jpeg).astype(int) - pixels(second.jpeg)).mean(2)
        assert change[first.object_map > 0].mean() < 12 < change[first.object_map == 0].mean()


def test_backgrounds_follow_the_bias() -> None:
    def kinds(count: int, **changes: object) -> list[tuple[int, int]]:
        made = (make_scene(settings_with(size=16, **changes), i) for i in range(count))
        return [(scene.label, scene.background) for scene in made]

    assert all(label == background for label, background in kinds(30, background_bias=1.0))
    swapped = kinds(30, background_bias=0.9, swap_backgrounds=True)
    assert all(background == (label + 1) % 10 for label, background in swapped)
    free = kinds(200)
    assert 5 <= sum(label == background for label, background in free) <= 40
    assert {background for _, background in free} == {label for label, _ in free} == set(range(10))
    assert [label for label, _ in free[:30]] == [label for label, _ in swapped]


@pytest.mark.parametrize("size", [16, 33, 96, 300])
def test_size_fixes_the_side(size: int) -> None:
    source = Scenes(count=3, size=size)
    for i in range(3):
        assert pixels(source.read(i)).shape == (size, size, 3)
        assert source.mask(i).shape == (size, size)


def test_more_classes_than_shapes() -> None:
    source = Scenes(count=30, size=16, classes=25)
    assert len(set(source.classes)) == 25 and source.labels is not None
    assert source.labels.max() > 9


# --------------------------------------------------------------------------------------- the parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "_PART", 4)


def count_paintings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    painted: list[int] = []

    def counted(settings: SceneSettings, index: int) -> scene_draw.Scene:
        painted.append(index)
        return make_scene(settings, index)

    monkeypatch.setattr(scene_draw, "make_scene", counted)
    return painted


@pytest.mark.usefixtures("small_parts")
def test_scenes_are_painted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    painted = count_paintings(monkeypatch)
    first = Scenes(count=10, size=16)
    assert sorted(painted) == list(range(10))
    again, fewer = Scenes(count=10, size=16), Scenes(count=3, size=16)
    assert len(painted) == 10
    assert [again.read(i) for i in range(10)] == [first.read(i) for i in range(10)]
    assert len(fewer) == 3 and fewer.labels is not None and len(fewer.labels) == 3
    more = Scenes(count=12, size=16)
    assert sorted(painted[10:]) == [8, 9, 10, 11] and more.read(9) == first.read(9)


@pytest.mark.usefixtures("small_parts")
def test_an_interruption_loses_one_part_at_most(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(settings: SceneSettings, index: int) -> scene_draw.Scene:
        if index == 5:
            raise KeyboardInterrupt
        return make_scene(settings, index)

    with monkeypatch.context() as patch:
        patch.setattr(scene_draw, "make_scene", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Scenes(count=12, size=16)
    files = [path.name for path in cache_folder.rglob("*") if path.is_file()]
    assert sorted(files) == ["000000000-000000004.scenes", "lock"]
    painted = count_paintings(monkeypatch)
    assert len(Scenes(count=12, size=16)) == 12
    assert sorted(painted) == list(range(4, 12))


def test_a_truncated_part_is_painted_again(cache_folder: Path) -> None:
    before = Scenes(count=3, size=16)
    scene = before.read(2)
    (part,) = cache_folder.rglob("*.scenes")
    data = part.read_bytes()
    part.unlink()  # the old map stays valid
    part.write_bytes(data[:-100])
    assert Scenes(count=3, size=16).read(2) == scene


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scenes.columns, "write", full)
    with pytest.raises(MillError, match=r"No space left on device.*PATCHMILL_CACHE") as caught:
        Scenes(count=2, size=16)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------- the words


def test_scenes_by_name() -> None:
    assert open_source("scenes:4").name == "scenes:4"
    named = open_source("scenes(count=4, size=16, background_bias=0.9)")
    assert len(named) == 4
    assert open_source(named.name).fingerprint == named.fingerprint
    assert open_source(named) is named


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("scenes:", "scenes:10000"),
        ("scenes:many", "scenes:10000"),
        ("scenes:-3", "scenes:10000"),
        ("scenes:0", "count must be"),
        ("scenes(count=1.5)", "count must be"),
        ("scenes(seed=-1)", "seed must be"),
        ("scenes(background_bias=2)", "background_bias must be"),
        ("scenes(background_bias='high')", "background_bias must be"),
        ("scenes(colour_bias=-0.1)", "colour_bias must be"),
        ("scenes(colour_bias=True)", "colour_bias must be"),
        ("scenes(swap_backgrounds=1)", "swap_backgrounds must be"),
        ("scenes(objects=3)", "objects must be"),
        ("scenes(objects=(3, 1))", "objects must be"),
        ("scenes(classes=0)", "classes must be"),
        ("scenes(classes=1, swap_backgrounds=True)", "at least 2 classes"),
        ("scenes(size=4)", "size must be"),
        ("scenes(sizes=96)", "did you mean 'size'"),
        ("scenes(count=", "cannot read"),
    ],
)
def test_bad_arguments_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(MillError, match=sentence) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------- the biases


def drawn_with(settings: SceneSettings, index: int) -> tuple[scene_draw.Scene, list[tuple]]:
    """The scene, and for each object, the last one first: its shape, pattern, pose and colours."""
    drawn = []
    draw = scene_draw.compose.draw_object

    def recorded(canvas, object_map, number, atlas, shape, pattern, pose, colours, *rest):
        drawn.append(((number, shape, pattern, pose, *rest), colours))
        draw(canvas, object_map, number, atlas, shape, pattern, pose, colours, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_draw.compose, "draw_object", recorded)
        return make_scene(settings, index), drawn


def without_colours(drawn: list[tuple]) -> str:
    return repr([form for form, _ in drawn])


@given(
    seed=st.integers(0, 2**63 - 1),
    index=st.integers(0, 10**8),
    colour_bias=st.floats(0, 1),
    background_bias=st.floats(0, 1),
    objects=st.sampled_from([(1, 1), (1, 3), (3, 6)]),
    classes=st.integers(2, 100),
)
@example(0, 0, 1.0, 1.0, (1, 3), 10)
@settings(max_examples=12, deadline=None)
def test_biases_change_what_they_say_alone(
    seed: int,
    index: int,
    colour_bias: float,
    background_bias: float,
    objects: tuple[int, int],
    classes: int,
) -> None:
    plain = settings_with(seed=seed, objects=objects, classes=classes, size=32)
    first, first_drawn = drawn_with(plain, index)
    assert make_scene(plain, index).jpeg == first.jpeg
    for bias in ({"colour_bias": colour_bias}, {"background_bias": background_bias}):
        other, other_drawn = drawn_with(replace(plain, **bias), index)
        np.testing.assert_array_equal(other.object_map, first.object_map)
        assert other.object_labels == first.object_labels
        assert without_colours(other_drawn) == without_colours(first_drawn)
        if "background_bias" in bias:
            assert repr(other_drawn) == repr(first_drawn)
            assert other.background in (first.background, first.label)
        else:
            assert other.background == first.background


@given(seed=st.integers(0, 2**63 - 1), kinds=st.tuples(*[st.integers(0, 99)] * 2))
def test_palettes_are_independent_of_the_class_without_a_bias(
    seed: int, kinds: tuple[int, int]
) -> None:
    def draw(kind: int, bias: float) -> list[palettes.Palette]:
        random = np.random.default_rng(seed)
        return [palettes.draw(kind, bias, random) for _ in range(3)]

    first, second = (draw(kind, 0.0) for kind in kinds)
    assert first == second and len(set(first)) == 3
    assert all(0 <= value <= 1 for palette in first for colour in palette for value in colour)
    assert (draw(kinds[0], 1.0) == draw(kinds[1], 1.0)) == (kinds[0] == kinds[1])


@pytest.mark.parametrize("kind", range(10))
def test_palettes_with_full_bias_are_the_class_s_own(kind: int) -> None:
    random = np.random.default_rng(kind)
    drawn = np.array([palettes.draw(kind, 1.0, random) for _ in range(20)])
    own = np.array([*palettes.OWN[kind], palettes.LIGHT, palettes.DARK])
    assert np.abs(drawn - own).max() < 0.4  # their brightness and hues vary a little
    assert np.abs(drawn.mean(0) - own).max() < 0.1


def test_palettes_are_the_class_s_own_as_often_as_the_bias_says() -> None:
    def hits(bias: float) -> int:
        random, again = np.random.default_rng(0), np.random.default_rng(0)
        return sum(
            palettes.draw(3, bias, random) == palettes.draw(3, 1.0, again) for _ in range(400)
        )

    assert hits(0.0) == 0 and hits(1.0) == 400
    assert 80 < hits(0.25) < 120


def test_patterns_tell_classes_of_the_same_shape_apart() -> None:
    names = Scenes(count=1, size=16, classes=100).classes
    assert len(set(names)) == 100 and names[:10] == list(shapes.SHAPES)
    assert names[18] == "striped-cat" and names[99] == "starry-beetle"
    images = []
    for pattern in range(10):
        canvas, object_map = np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8)
        scene_draw.compose.draw_object(
            canvas,
            object_map,
            1,
            scene_draw.scene_noise.atlas(),
            8,
            pattern,
            (32.0, 32.0, 24.0, 0.3, 1.0, 1.0),
            (*palettes.OWN[8], palettes.LIGHT, palettes.DARK),
            np.array([0.6, -0.8, 0.5, 0.2]),
            (0.6, 0.1, 1.0),
        )
        images.append(canvas[object_map > 0])
    for number, image in enumerate(images):
        assert len(image) == len(images[0]) > 500
        for other in images[:number]:
            assert np.abs(image - other).mean() > 0.05
