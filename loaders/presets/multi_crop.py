"""Presets with crops of two sizes."""

from __future__ import annotations

from dataclasses import replace

from patchmill.loaders.presets.registry import MILD, STRONG, SWAV_STD, preset, simclr_jitter
from patchmill.loaders.recipe import Blur, Crop, Range, Recipe, Views


@preset
def dino(
    local_crops: int = 8,
    global_scale: Range = (0.4, 1.0),
    local_scale: Range = (0.05, 0.4),
    global_size: int = 224,
    local_size: int = 96,
    distort: float = 1.0,
) -> Recipe:
    """Two global crops, blurred and solarised with different probabilities, and many local ones.

    local_crops: number of local crops, 0 for none
    global_scale: range of a global crop's area, as a share of the image's
    local_scale: the same for a local crop
    global_size: side of a global crop in pixels
    local_size: side of a local crop in pixels
    distort: factor on the probabilities of blur and solarisation, 0 for small images
    """
    crops = Views(
        "global",
        2,
        global_size,
        Crop(global_scale),
        colour=MILD,
        blur=Blur((distort, 0.1 * distort)),
        solarise=(0.0, 0.2 * distort),
        interpolation="bicubic",
    )
    local = replace(
        crops,
        name="local",
        count=local_crops,
        size=local_size,
        crop=Crop(local_scale),
        blur=Blur(0.5 * distort),
        solarise=0.0,
    )
    return Recipe(
        (crops, local) if local_crops else (crops,),
        "dino",
        "facebookresearch/dino, main_dino.py: DataAugmentationDINO and its flags' defaults.",
    )


@preset
def dinov2(
    local_crops: int = 8,
    global_scale: Range = (0.32, 1.0),
    local_scale: Range = (0.05, 0.32),
    global_size: int = 224,
    local_size: int = 96,
    as_trained: bool = True,
) -> Recipe:
    """DINO's crops at other scales, blurred with nine-tap kernels.

    local_crops: number of local crops, 0 for none
    global_scale: range of a global crop's area, as a share of the image's
    local_scale: the same for a local crop
    global_size: side of a global crop in pixels
    local_size: side of a local crop in pixels
    as_trained: blur as often as the released code does, rather than as its settings say
    """
    crops, *local = dino(local_crops, global_scale, local_scale, global_size, local_size).views
    chances = (0.0, 0.9) if as_trained else (1.0, 0.1)
    return Recipe(
        (
            replace(crops, blur=Blur(chances, kernel=9)),
            *(replace(group, blur=Blur(0.5, kernel=9)) for group in local),
        ),
        "dinov2",
        "facebookresearch/dinov2, dinov2/data/augmentations.py and transforms.py, and its default "
        "configuration. Its GaussianBlur mistakes the probability of blurring for that of not "
        "blurring, so 1.0, 0.1 and 0.5 act as 0.0, 0.9 and 0.5; the released models saw those.",
    )


@preset
def swav(
    local_crops: int = 6,
    global_scale: Range = (0.14, 1.0),
    local_scale: Range = (0.05, 0.14),
    global_size: int = 224,
    local_size: int = 96,
) -> Recipe:
    """Two large and many small crops, all augmented alike.

    local_crops: number of small crops, 0 for none
    global_scale: range of a large crop's area, as a share of the image's
    local_scale: the same for a small crop
    global_size: side of a large crop in pixels
    local_size: side of a small crop in pixels
    """
    crops = Views(
        "global", 2, global_size, Crop(global_scale), colour=STRONG, blur=Blur(0.5), std=SWAV_STD
    )
    local = replace(crops, name="local", count=local_crops, size=local_size, crop=Crop(local_scale))
    return Recipe(
        (crops, local) if local_crops else (crops,),
        "swav",
        "facebookresearch/swav, src/multicropdataset.py, whose std does begin with .228, and the "
        "README's command for 800 epochs.",
    )


@preset
def lejepa(
    local_crops: int = 6,
    global_scale: Range = (0.3, 1.0),
    local_scale: Range = (0.05, 0.3),
    global_size: int = 224,
    local_size: int = 98,
    global_crops: int = 2,
    blur: float = 0.5,
) -> Recipe:
    """Global and local crops, all augmented alike.

    local_crops: number of local crops, 0 for none
    global_scale: range of a global crop's area, as a share of the image's
    local_scale: the same for a local crop
    global_size: side of a global crop in pixels
    local_size: side of a local crop in pixels: seven patches of 14; a ViT/16 needs 96
    global_crops: number of global crops
    blur: probability of blurring; use 0 for images as small as CIFAR's
    """
    crops = Views(
        "global",
        global_crops,
        global_size,
        Crop(global_scale),
        colour=MILD,
        blur=Blur(blur),
        solarise=0.2,
    )
    local = replace(crops, name="local", count=local_crops, size=local_size, crop=Crop(local_scale))
    return Recipe(
        (crops, local) if local_crops else (crops,),
        "lejepa",
        "rbalestr-lab/lejepa, README, which does not give the blur's radius: ours is a choice.",
    )


@preset
def gtsa(
    local_crops: int = 8,
    global_scale: Range = (0.3, 1.0),
    local_scale: Range = (0.1, 0.3),
    global_size: int = 224,
    local_size: int = 96,
    strength: float = 1.0,
) -> Recipe:
    """Crops that overlap every global crop; rotated by quarter turns, never flipped.

    local_crops: number of local crops, 0 for none
    global_scale: range of a global crop's area, as a share of the image's
    local_scale: the same for a local crop
    global_size: side of a global crop in pixels
    local_size: side of a local crop in pixels
    strength: of the colour jitter
    """
    crops = Views(
        "global",
        2,
        global_size,
        Crop(global_scale, min_overlap=0.02),
        flip=0.0,
        turns=True,
        colour=simclr_jitter(strength),
        blur=Blur(0.2),
    )
    local = replace(
        crops,
        name="local",
        count=local_crops,
        size=local_size,
        crop=Crop(local_scale, min_overlap=0.01),
    )
    return Recipe(
        (crops, local) if local_crops else (crops,),
        "gtsa",
        "bok3948/GTSA, the released pre-training code. Ours differs: a crop without enough "
        "overlap is redrawn at most 50 times and then placed where it overlaps.",
    )
