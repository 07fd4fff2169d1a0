import inspect
from dataclasses import replace

import pytest

from patchmill.loaders import presets
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Blur,
    Centre,
    Colour,
    CopyPaste,
    Crop,
    Grid,
    Recipe,
    Shift,
    Window,
)
from patchmill.loaders.recipe_load import load_recipe

NAMES = list(presets.ALL)

# Fingerprints are in checkpoints: when one changes, so do the views, and LAWS_VERSION or a preset
# was changed on purpose.
FINGERPRINTS = {
    "dino": "0a92b9bf3abc2a09",
    "dinov2": "88ff3632d1f6842c",
    "swav": "400e7ba2daa84904",
    "moco_v1": "fe71685b3fa4319d",
    "moco_v2": "ec01551299745639",
    "dilo_v1": "fa2ab8397936113b",
    "dilo": "dcbc7d0fa4eb3d7f",
    "simclr": "ecbc2793e5317763",
    "vicreg": "5b65cc750923945d",
    "lejepa": "d3ec63ca28b2bdef",
    "gtsa": "084e1d8dce16afd9",
    "bagssl": "6d681a193085da8c",
    "emp_ssl": "dd3d247ce7b85301",
    "selfie": "0d6f2a997c89e759",
    "eval": "44b8b86a24cbad2b",
}


def test_all_presets_are_there():
    assert NAMES == (
        "eval dino dinov2 swav lejepa gtsa bagssl emp_ssl selfie moco_v1 moco_v2 dilo_v1 dilo "
        "simclr vicreg".split()
    )


@pytest.mark.parametrize("name", NAMES)
def test_presets_survive_yaml_and_the_command_line(name):
    made = presets.ALL[name]()
    assert made.name == name and len(made.provenance) > 20
    assert Recipe.from_yaml(made.to_yaml()) == made == load_recipe(f"{name}()")
    assert hash(made) == hash(presets.ALL[name]())


@pytest.mark.parametrize("name", NAMES)
def test_fingerprints_never_change_by_accident(name):
    assert presets.ALL[name]().fingerprint() == FINGERPRINTS[name]


def test_fingerprints_differ():
    assert len(set(FINGERPRINTS.values())) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_documented_and_has_an_effect(name):
    preset = presets.ALL[name]
    for knob, parameter in inspect.signature(preset).parameters.items():
        assert f"    {knob}: " in preset.__doc__
        other = {
            int: lambda x: 2 * x,
            float: lambda x: x / 2 if x else 0.25,
            bool: lambda x: not x,
            tuple: lambda x: (x[0] * 0.9, x[1]),
            str: lambda _: "bicubic",
            type(None): lambda _: 64,
        }[type(parameter.default)](parameter.default)
        knobs = {"size": 128, "patch": 64} if (name, knob) == ("selfie", "patch") else {knob: other}
        knobs |= {"short_side": 512} if name == "eval" else {}
        knobs |= {"background": "texture"} if knob == "background" else {}
        assert preset(**knobs) != preset()


@pytest.mark.parametrize("name", ["dino", "dinov2", "swav", "lejepa", "gtsa"])
def test_multi_crop_knobs(name):
    made = presets.ALL[name](3, (0.5, 0.9), (0.1, 0.2), 160, 64)
    large, small = made.views
    assert (large.name, large.count, large.size, large.crop.scale) == ("global", 2, 160, (0.5, 0.9))
    assert (small.name, small.count, small.size, small.crop.scale) == ("local", 3, 64, (0.1, 0.2))
    assert [group.name for group in presets.ALL[name](local_crops=0).views] == ["global"]


def test_dino_is_dino():
    large, small = presets.dino().views
    assert (large.count, large.size, large.crop) == (2, 224, Crop((0.4, 1.0)))
    assert (small.count, small.size, small.crop) == (8, 96, Crop((0.05, 0.4)))
    assert large.blur == Blur((1.0, 0.1)) and small.blur == Blur(0.5)
    assert large.solarise == (0.0, 0.2) and small.solarise == 0.0
    for group in (large, small):
        colour = group.colour
        assert (colour.brightness, colour.contrast, colour.saturation) == (0.4, 0.4, 0.2)
        assert (colour.hue, colour.p, colour.grey) == (0.1, 0.8, 0.2)
        assert group.interpolation == "bicubic" and group.flip == 0.5
        assert (group.mean, group.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_dinov2_blurs_as_trained_or_as_written():
    assert presets.dinov2().views[0].blur == Blur((0.0, 0.9), kernel=9)
    assert presets.dinov2(as_trained=False).views[0].blur == Blur((1.0, 0.1), kernel=9)
    for as_trained in (True, False):
        assert presets.dinov2(as_trained=as_trained).views[1].blur == Blur(0.5, kernel=9)
    assert presets.dinov2().views[1].crop.scale == (0.05, 0.32)


def test_swav_has_its_own_std():
    for group in presets.swav().views:
        assert group.std == (0.228, 0.224, 0.225) and group.mean == IMAGENET_MEAN
        assert group.interpolation == "bilinear" and group.blur == Blur(0.5)


def test_moco_v1_converts_to_grey_first_and_always_jitters():
    colour = presets.moco_v1().views[0].colour
    assert colour.grey_first and colour.p == 1.0 and colour.hue == 0.4
    assert presets.moco_v1().views[0].blur is None
    assert not presets.moco_v2().views[0].colour.grey_first


def test_dilo_is_moco_with_copy_paste():
    for ours, moco in (("dilo", presets.moco_v2), ("dilo_v1", presets.moco_v1)):
        (group,), (plain,) = presets.ALL[ours]().views, moco().views
        assert group.paste == CopyPaste(0.3, "grey", 0.5, 5.0)
        assert replace(group, paste=None) == plain
        assert presets.ALL[ours](96, (0.1, 0.9), background="images").views[0].size == 96


def test_simclr_s_blur_takes_a_tenth_of_the_side():
    assert [presets.simclr(size).views[0].blur.kernel for size in (224, 96, 32)] == [23, 9, 3]
    assert presets.simclr(strength=0.5).views[0].colour.hue == 0.1


def test_vicreg_augments_its_views_differently():
    (group,) = presets.vicreg().views
    assert group.blur.p == (1.0, 0.1) and group.solarise == (0.0, 0.2)


def test_vicreg_without_blur_still_solarises_one_view():
    (group,) = presets.vicreg(blur=False).views
    assert group.blur is None and group.solarise == (0.0, 0.2)


def test_lejepa_augments_all_its_crops_alike():
    large, small = presets.lejepa().views
    assert (large.count, large.size, large.crop) == (2, 224, Crop((0.3, 1.0)))
    assert (small.count, small.size, small.crop) == (6, 98, Crop((0.05, 0.3)))
    assert replace(small, name="global", count=2, size=224, crop=large.crop) == large
    colour = large.colour
    assert (colour.brightness, colour.contrast, colour.saturation) == (0.4, 0.4, 0.2)
    assert (colour.hue, colour.p, colour.grey) == (0.1, 0.8, 0.2)
    assert (large.blur.p, large.solarise, large.flip) == (0.5, 0.2, 0.5)
    (four,) = presets.lejepa(local_crops=0, global_crops=4, blur=0.0).views
    assert (four.name, four.count, four.blur.p) == ("global", 4, 0.0)


def test_gtsa_never_flips_and_always_turns():
    large, small = presets.gtsa().views
    assert (large.crop, small.crop) == (
        Crop((0.3, 1), min_overlap=0.02),
        Crop((0.1, 0.3), min_overlap=0.01),
    )
    for group in (large, small):
        assert group.turns and group.flip == 0 and group.solarise == 0 and group.blur.p == 0.2


def test_bagssl_cuts_by_scale_or_by_pixels():
    (group,) = presets.bagssl().views
    assert group.crop == Crop((0.2, 0.2), (1, 1)) and group.blur is None
    assert (group.mean, group.std) == (presets.CIFAR_MEAN, presets.CIFAR_STD)
    (group,) = presets.bagssl(patches=3, size=64, short_side=256).views
    assert group.crop == Window(256) and group.blur.p == (1.0, 0.1, 1.0)
    assert group.std == IMAGENET_STD


def test_emp_ssl_for_small_and_large_images():
    (small,), (large,) = presets.emp_ssl().views, presets.emp_ssl(size=224).views
    assert small.total == 20 and small.crop == Crop((0.25, 0.25), (1, 1))
    assert large.crop == Crop((0.25, 0.25)) and large.interpolation == "bicubic"
    for group in (small, large):
        assert group.mean == group.std == (0.5, 0.5, 0.5) and group.colour.hue == 0.2


def test_selfie_s_grids():
    assert presets.selfie().views[0].crop == Grid(4, 4, Shift(4))
    assert presets.selfie(size=224).views[0].crop == Grid(7, 7, Crop())
    assert presets.selfie(size=224).views[0].size == 32
    assert presets.selfie(size=96, patch=16).total == 36
    assert presets.selfie().views[0].colour is None
    assert presets.selfie(jitter=0.5).views[0].colour == Colour(0.4, 0.4, 0.4, 0.25, p=1.0)


def test_eval_draws_nothing():
    (group,) = presets.eval().views
    assert group.crop == Centre(256) and group.flip == 0 and group.name == "image"
    assert group.colour is None and group.blur is None


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_a_preset_lacks_is_named(name: str):
    with pytest.raises(MillError, match=f"preset {name} has no setting 'szie'"):
        presets.ALL[name](szie=3)
