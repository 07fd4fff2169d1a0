import dataclasses
import math

import numpy as np
import pytest
from helpers_recipes import recipes
from hypothesis import given

from patchmill.loaders import presets
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import (
    Blur,
    Centre,
    Colour,
    CopyPaste,
    Crop,
    Grid,
    Recipe,
    Shift,
    Views,
    Window,
    chance_of,
)
from patchmill.loaders.recipe_load import load_recipe


def views(**settings) -> Recipe:
    return Recipe((Views(**{"name": "a", "count": 2, "size": 32} | settings),))


@given(recipes())
def test_yaml_gives_the_recipe_back(made):
    again = Recipe.from_yaml(made.to_yaml())
    assert again == made and hash(again) == hash(made)
    assert (again.name, again.provenance) == (made.name, made.provenance)
    assert again.to_yaml() == made.to_yaml() and again.fingerprint() == made.fingerprint()


def test_equal_numbers_make_equal_recipes():
    whole = views(crop=Crop((0.5, 1), (1, 2)), flip=1, colour=Colour(p=1))
    listed = views(
        crop=Crop([0.5, 1.0], [np.float32(1), 2.0]), flip=np.int64(1), colour=Colour(p=1.0)
    )
    assert whole == listed and hash(whole) == hash(listed)
    assert whole.to_yaml() == listed.to_yaml()
    assert whole.fingerprint() == listed.fingerprint()
    assert isinstance(whole.views[0].flip, float)
    assert Recipe([Views("a", 1, 8)]).views == (Views("a", 1, 8),)


def test_fingerprints_depend_on_every_setting_except_names():
    base = views(crop=Grid(2, 2, Shift(3)), colour=Colour(), blur=Blur())
    group = base.views[0]
    changes = {
        "name": "b",
        "count": 3,
        "size": 33,
        "flip": (0.5, 0.4),
        "solarise": 0.1,
        "interpolation": "bicubic",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "crop": Grid(2, 2, Shift(2)),
        "colour": Colour(grey_first=True),
        "blur": Blur(kernel=9),
        "paste": CopyPaste(),
    }
    recipes = [base] + [
        Recipe((dataclasses.replace(group, **{name: value}),)) for name, value in changes.items()
    ]
    recipes += [
        Recipe((dataclasses.replace(group, crop=crop),))
        for crop in (
            Grid(2, 1, Shift(3)),
            Grid(1, 2, Shift(3)),
            Shift(3),
            Window(),
            Centre(),
            Crop(),
        )
    ]
    recipes += [
        views(paste=paste)
        for paste in (
            CopyPaste(),
            CopyPaste(0.2),
            CopyPaste((0.3, 0.3)),
            CopyPaste(background="texture"),
            CopyPaste(blur_p=1),
            CopyPaste(blur_sigma=4),
        )
    ]
    recipes += [views(turns=True), views(colour=None), Recipe((group, Views("z", 1, 8)))]
    assert len({made.fingerprint() for made in recipes}) == len(recipes)
    renamed = Recipe(base.views, name="other", provenance="elsewhere")
    assert renamed == base and renamed.fingerprint() == base.fingerprint()


def test_totals_and_groups():
    made = Recipe((Views("a", 2, 8, Grid(3, 2)), Views("b", 1, 16)), name="mine")
    assert made.total == 13 and made.pixels == 12 * 64 + 256
    assert made.group("b").size == 16
    assert str(made) == "mine: 12 x 8px a, 1 x 16px b"
    with pytest.raises(MillError, match="mine has no view group 'c'"):
        made.group("c")


def test_probabilities_are_for_all_views_or_per_view():
    assert chance_of(0.3, 5) == 0.3
    assert chance_of((0.1, 0.9), 1) == 0.9


def test_recipes_load_from_what_users_write(tmp_path):
    made = presets.dino(local_crops=6)
    assert load_recipe(made) is made
    assert load_recipe("dino(local_crops=6)") == made
    assert load_recipe(" dino ") == presets.dino()
    assert load_recipe("dino(global_scale=(0.3, 1))") == presets.dino(global_scale=(0.3, 1.0))
    path = tmp_path / "my recipe.yaml"
    path.write_text(made.to_yaml())
    assert load_recipe(path) == load_recipe(str(path)) == made


def test_short_yaml_uses_defaults():
    made = Recipe.from_yaml("views: [{name: a, count: 2, size: 32, crop: {kind: window}, flip: 0}]")
    assert made == Recipe((Views("a", 2, 32, Window(), flip=0.0),))


def test_a_former_name_of_a_setting_is_read():
    text = "views: [{name: a, count: 2, size: 32, paste: {blur_radius: 3}}]"
    assert Recipe.from_yaml(text) == views(paste=CopyPaste(blur_sigma=3.0))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"count": 0}, "views 'a': count must be at least 1, not 0"),
        ({"count": 1.5}, "views 'a': count must be a whole number, not 1.5"),
        ({"count": True}, "views 'a': count must be a whole number, not True"),
        ({"size": "32"}, "views 'a': size must be a whole number, not '32'"),
        ({"size": 0}, "size must be 1 to 8192 pixels, not 0"),
        ({"size": 10_000}, "size must be 1 to 8192"),
        ({"interpolation": "nearest"}, "interpolation must be bilinear or bicubic, not 'nearest'"),
        ({"turns": 1}, "turns must be true or false, not 1"),
        ({"flip": 1.2}, "flip must be probabilities between 0 and 1, not 1.2"),
        ({"flip": math.nan}, "flip must be a number or a list of numbers, not nan"),
        ({"flip": (0.1, 0.2, 0.3)}, "flip lists 3 probabilities for 2 views"),
        ({"flip": "often"}, "flip must be a number or a list of numbers, not 'often'"),
        ({"solarise": (0.1, -1)}, "solarise must be probabilities"),
        ({"mean": (0.5, 0.5)}, "mean must be a list of 3 numbers, not"),
        ({"std": (1, 0, 1)}, "std must be positive"),
        ({"crop": "crop"}, "crop must be a mapping whose kind is one of: crop, window, shift,"),
        ({"crop": Crop}, "crop must be a mapping whose kind is"),
        ({"crop": Crop((0.5, 0.2))}, "scale must satisfy 0 < low <= high <= 1, not"),
        ({"crop": Crop((0.0, 0.2))}, "scale must satisfy"),
        ({"crop": Crop((0.2, 2))}, "scale must satisfy"),
        ({"crop": Crop(0.2)}, "views 'a': crop.scale must be a list of 2 numbers, not 0.2"),
        ({"crop": Crop((0.2, math.inf))}, r"crop.scale\[1\] must be a number, not inf"),
        ({"crop": Crop((0.2, 10**400))}, r"crop.scale\[1\] must be a number"),
        ({"crop": Crop(ratio=(2, 1))}, "ratio must satisfy"),
        ({"crop": Crop(ratio=(0, 1))}, "ratio must satisfy"),
        ({"crop": Crop((0.2, 1), min_overlap=0.2)}, "min_overlap must be 0 or more, and below"),
        ({"crop": Crop(min_overlap=-0.1)}, "min_overlap must be 0 or more"),
        (
            {"crop": Grid(2, 2, Crop(min_overlap=0.01))},
            "min_overlap needs crops to overlap with",
        ),
        ({"crop": Window(31)}, "short_side must be at least the view's 32 pixels"),
        ({"crop": Centre(31)}, "short_side must be at least the view's 32 pixels"),
        ({"crop": Grid(2, 3, Window(95))}, "short_side must be at least the view's 96 pixels"),
        ({"crop": Window(20_000)}, "short_side must be .* at most 16384, not 20000"),
        ({"crop": Shift(-1)}, "pad must be 0 to the view's 32, not -1"),
        ({"crop": Shift(33)}, "pad must be 0 to the view's 32, not 33"),
        ({"crop": Grid(0, 2)}, "rows and columns of at least 1"),
        ({"crop": Grid(2, 2, Grid(2, 2))}, "crop.of must be a mapping whose kind is one of"),
        ({"crop": Grid(2, 2), "turns": True}, "cells of a grid cannot be turned"),
        ({"colour": "red"}, "colour must be a mapping of settings or none, not 'red'"),
        ({"colour": Colour(brightness=-1)}, "colour.brightness must be 0 to 2.9, not -1"),
        ({"colour": Colour(contrast=-1)}, "colour.contrast must be 0 to 2.9"),
        ({"colour": Colour(saturation=-1)}, "colour.saturation must be 0 to 2.9"),
        ({"colour": Colour(brightness=math.inf)}, "colour.brightness must be a number, not inf"),
        ({"colour": Colour(hue=0.6)}, "colour.hue must be 0 to 0.5 turns, not 0.6"),
        ({"colour": Colour(p=2)}, "colour.p must be probabilities"),
        ({"colour": Colour(grey=(0.1,))}, "colour.grey lists 1 probabilities for 2 views"),
        ({"colour": Colour(grey_first="no")}, "grey_first must be true or false, not 'no'"),
        ({"blur": Blur(sigma=(0, 1))}, "blur.sigma must satisfy"),
        ({"blur": Blur(sigma=(1, 11))}, "blur.sigma must satisfy"),
        ({"blur": Blur(kernel=8)}, "blur.kernel must be odd and 1 to 61, not 8"),
        ({"blur": Blur(kernel=63)}, "blur.kernel must be odd"),
        ({"blur": Blur(kernel=9.5)}, "blur.kernel must be a whole number or none, not 9.5"),
        ({"blur": Blur(p=(0.5,))}, "blur.p lists 1 probabilities"),
        ({"paste": CopyPaste(1.5)}, "paste.p must be probabilities"),
        ({"paste": CopyPaste((0.3,))}, "paste.p lists 1 probabilities for 2 views"),
        ({"paste": CopyPaste(blur_p=-1)}, "paste.blur_p must be probabilities"),
        ({"paste": CopyPaste(blur_p=(0.5, 0.5))}, "paste.blur_p must be a number, not"),
        ({"paste": CopyPaste(blur_sigma=0)}, "paste.blur_sigma must be above 0 and at most 50"),
        ({"paste": CopyPaste(blur_sigma=51)}, "paste.blur_sigma must be .* pixels, not 51"),
        (
            {"paste": CopyPaste(background="gray")},
            "paste.background must be grey, texture or images, not 'gray'",
        ),
        ({"paste": "grey"}, "paste must be a mapping of settings or none, not 'grey'"),
        ({"name": ""}, "distinct names, but '' is empty or used twice"),
        ({"name": 3}, "views 3: name must be text, not 3"),
        ({"count": 65_537}, "65 536 views at most, this one has 65537"),
    ],
)
def test_invalid_settings_are_refused_by_name(settings, complaint):
    with pytest.raises(MillError, match=complaint):
        views(**settings)


def test_groups_need_crops_to_overlap_with_and_names_of_their_own():
    local = Views("local", 1, 8, Crop(min_overlap=0.01))
    assert Recipe((Views("global", 1, 8), local)).total == 2
    with pytest.raises(MillError, match="but 'global' has none"):
        Recipe((Views("global", 1, 8, Window()), local))
    with pytest.raises(MillError, match="'local' is empty or used twice"):
        Recipe((local, Views("local", 2, 16)))
    with pytest.raises(MillError, match="the recipe has no views"):
        Recipe(())
    with pytest.raises(MillError, match="views must be a list of mappings, not"):
        Recipe("dino")
    with pytest.raises(MillError, match="views must be a list of mappings, not"):
        Recipe(local)


# Nine lines, each a list of ten times the one before.
BILLION = "\n".join(
    ["a0: &a0 x"] + [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(9)]
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the recipe must be a mapping of settings, not None"),
        ("[1, 2]", "the recipe must be a mapping"),
        ("{}", "the recipe: views must be given"),
        ("view: []", "the recipe: there is no setting view; did you mean 'views'?"),
        ("views: []", "has no views"),
        ("views: {name: a}", "the recipe: views must be a list of mappings"),
        ("views: [a]", "the recipe: views number 1 must be a mapping of settings, not 'a'"),
        ("views: [{size: 3}]", "views number 1: name and count must be given"),
        ("views: [{name: a, size: 3}]", "views 'a': count must be given"),
        (
            "views: [{name: a, count: 1, size: 8, flp: 1}]",
            "views 'a': there is no setting flp; did you",
        ),
        ("views: [{name: a, count: 1, size: 8, 3: 1}]", "views 'a': there is no setting 3"),
        (
            "views: [{name: a, count: 1, size: 8, kind: crop}]",
            "views 'a': there is no setting kind",
        ),
        ("views: [{name: a, count: 1, size: 8, crop: {}}]", "kind is one of: crop, window"),
        ("views: [{name: a, count: 1, size: 8, crop: {kind: zoom}}]", "kind is one of: crop"),
        ("views: [{name: a, count: 1, size: 8, crop: {kind: [crop]}}]", "kind is one of: crop"),
        (
            "views: [{name: a, count: 1, size: 8, crop: {kind: crop, scal: [0, 1]}}]",
            "views 'a': there is no setting crop.scal; did you mean 'scale'",
        ),
        (
            "views: [{name: a, count: 1, size: 8, crop: {kind: grid, of: {kind: grid}}}]",
            "'a': crop.of must be a mapping whose kind is one of: crop, window, shift, centre",
        ),
        ("views: [{name: a, count: 1, size: 8, colour: {p: x}}]", "colour.p must be a number or"),
        ("views: [{name: a, count: 1, size: 8, colour: [1]}]", "colour must be a mapping"),
        ("views: [", "the recipe is not valid YAML"),
        ("!!python/object/apply:os.system [echo]", "the recipe is not valid YAML"),
        ("!!float 'x'", "not valid YAML: could not convert string to float: 'x'"),
        ("views: !!int 'x'", "not valid YAML: invalid literal for int"),
        ("views: 2001-99-99", "not valid YAML: month must be in 1..12"),
        ("views: !!binary 'a'", "not valid YAML"),
        ("[" * 20_000, "the recipe is not valid YAML"),
        ("[" * 100 + "]" * 100, "nested more than 64 deep"),
        ("- " * 900, "nested more than 64 deep"),
        ("views: &a [*a]", "an alias refers to a node that contains it"),
        ("views: &a {<<: *a}", "an alias refers to a node that contains it"),
        (BILLION, "the recipe is not valid YAML: it holds more than 100,000 values"),
        (
            "views: [{name: a, size: 8, count: 0x" + "f" * 5000 + "}]",
            "count must be a whole number, not a",
        ),
        ("views: " + "x" * 10**6, "views must be a list of mappings, not 'xxx"),
        ('"a\\nb\\e[2J": 1', r"there is no setting a\\x0ab\\x1b\[2J; there are"),
    ],
)
def test_invalid_yaml_is_refused_by_the_setting_s_name(text, complaint):
    with pytest.raises(MillError, match=complaint) as raised:
        Recipe.from_yaml(text)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("dinoo", "there is no preset 'dinoo'; did you mean 'dino'?"),
        ("", "cannot read ''"),
        ("dino(", "cannot read"),
        ("dino(6)", "cannot read"),
        ("dino(**{})", "cannot read"),
        (
            "dino(local_crop=6)",
            "preset dino has no setting 'local_crop'; did you mean 'local_crops'?",
        ),
        ("dino(local_crops='six')", "dino: local_crops must be a whole number, not 'six'"),
        ("dino(global_scale=0.5)", "dino: global_scale must be a list of 2 numbers, not 0.5"),
        ("dino(global_scale=(0.5, 0.2))", "views 'global': scale must satisfy"),
        ("dino(local_crops=-1)", "views 'local': count must be at least 1, not -1"),
        ("selfie(size=33)", "patch must divide size, but 8 does not divide 33"),
        ("eval(size=300)", "short_side must be at least the view's 300 pixels"),
        ("bagssl(short_side='a')", "bagssl: short_side must be a whole number or none"),
        ("__import__('os')", "cannot read"),
        ("dino(local_crops=__import__('os').getpid())", "cannot read"),
        ("dino(local_crops=(lambda: 6)())", "cannot read"),
        ("dino; import os", "cannot read"),
        ("presets.dino()", "cannot read"),
        ("missing.yaml", "cannot read the recipe missing.yaml: No such file"),
    ],
)
def test_recipes_that_cannot_be_loaded_are_refused(text, complaint):
    with pytest.raises(MillError, match=complaint.replace("(", r"\(").replace("?", r"\?")):
        load_recipe(text)


def test_a_binary_recipe_is_refused(tmp_path):
    path = tmp_path / "photo.yaml"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(MillError, match="it is not a text file"):
        load_recipe(path)
