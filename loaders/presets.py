"""Presets: the view recipes of published methods, as functions of the usual settings.

Each names the source of its numbers, and those that could not be verified there. Groups are named
`global` and `local` for crops of two sizes, `views` for two equal views, `patches` for many views,
`image` for evaluation.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec

from patchmill.loaders.common import settings
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import (
    Blur,
    Centre,
    Colour,
    CopyPaste,
    Crop,
    Grid,
    Range,
    Recipe,
    Shift,
    Views,
    Window,
)

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
SWAV_STD = (0.228, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

MILD = Colour(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
STRONG = Colour(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)

ALL: dict[str, Callable[..., Recipe]] = {}

P = ParamSpec("P")


def preset(function: Callable[P, Recipe]) -> Callable[P, Recipe]:
    """Register a preset under its function's name; its arguments are checked by annotation."""
    build: Callable[..., Recipe] = function

    @functools.wraps(function)
    def checked(*values: P.args, **knobs: P.kwargs) -> Recipe:
        arguments = inspect.signature(function).bind(*values, **knobs).arguments
        return build(**settings.checked_arguments(function, arguments))

    ALL[function.__name__] = checked
    return checked


@preset
def dino(
    local_crops: int = 8,
    global_scale: Range = (0.4, 1.0),
    local_scale: Range = (0.05, 0.4),
    global_size: int = 224,
    local_size: int = 96,
) -> Recipe:
    """Two global crops, blurred and solarised with different probabilities, and many local ones.

    local_crops: how many local crops, 0 for none
    global_scale: range of the share of the image's area that a global crop covers
    local_scale: the same for a local crop
    global_size: side of a global crop in pixels
    local_size: side of a local crop in pixels
    """
    crops = Views(
        "global",
        2,
        global_size,
        Crop(global_scale),
        colour=MILD,
        blur=Blur((1.0, 0.1)),
        solarise=(0.0, 0.2),
        interpolation="bicubic",
    )
    local = replace(
        crops,
        name="local",
        count=local_crops,
        size=local_size,
        crop=Crop(local_scale),
        blur=Blur(0.5),
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
    """DINO's crops at other scales, blurred with nine taps.

    local_crops: how many local crops, 0 for none
    global_scale: range of the share of the image's area that a global crop covers
    local_scale: the same for a local crop
    global_size: side of a global crop in pixels
    local_size: side of a local crop in pixels
    as_trained: blur as often as the released code does, not as its settings say
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
        "configuration. Its GaussianBlur takes the probability of blurring for that of not "
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

    local_crops: how many small crops, 0 for none
    global_scale: range of the share of the image's area that a large crop covers
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
def moco_v1(size: int = 224, scale: Range = (0.2, 1.0)) -> Recipe:
    """Two views, sometimes greyscale, then always jittered.

    size: side of a view in pixels
    scale: range of the share of the image's area that a view covers
    """
    colour = Colour(0.4, 0.4, 0.4, 0.4, p=1.0, grey_first=True)
    return Recipe(
        (Views("views", 2, size, Crop(scale), colour=colour),),
        "moco_v1",
        "facebookresearch/moco, main_moco.py without --aug-plus.",
    )


@preset
def moco_v2(
    size: int = 224, scale: Range = (0.2, 1.0), blur: float = 0.5, cifar: bool = False
) -> Recipe:
    """Two views with jitter and blur.

    size: side of a view in pixels
    scale: range of the share of the image's area that a view covers
    blur: probability of blurring, 0 in the CIFAR-10 demo
    cifar: normalise by CIFAR's mean and std, as the CIFAR-10 demo does, instead of ImageNet's
    """
    views = Views("views", 2, size, Crop(scale), colour=Colour(0.4, 0.4, 0.4, 0.1), blur=Blur(blur))
    return Recipe(
        (replace(views, mean=CIFAR_MEAN, std=CIFAR_STD) if cifar else views,),
        "moco_v2",
        "facebookresearch/moco, main_moco.py with --aug-plus; its CIFAR-10 demo, a notebook, has "
        "scale=(0.08, 1.0), blur=0 and cifar=True.",
    )


@preset
def dilo_v1(
    size: int = 224, scale: Range = (0.2, 1.0), paste: float = 0.3, background: str = "grey"
) -> Recipe:
    """MoCo v1's views, some of them with the foreground on another background.

    size: side of a view in pixels
    scale: range of the share of the image's area that a view covers
    paste: probability that a view has another background
    background: grey, texture or images
    """
    (views,) = moco_v1(size, scale).views
    return Recipe((replace(views, paste=CopyPaste(paste, background)),), "dilo_v1", _DILO)


@preset
def dilo(
    size: int = 224,
    scale: Range = (0.2, 1.0),
    paste: float = 0.3,
    background: str = "grey",
    blur: float = 0.5,
    cifar: bool = False,
) -> Recipe:
    """MoCo v2's views, some of them with the foreground on another background.

    size: side of a view in pixels
    scale: range of the share of the image's area that a view covers
    paste: probability that a view has another background
    background: grey, texture or images
    blur: probability of blurring a view
    cifar: normalise by CIFAR's mean and std instead of ImageNet's
    """
    (views,) = moco_v2(size, scale, blur, cifar).views
    return Recipe((replace(views, paste=CopyPaste(paste, background)),), "dilo", _DILO)


_DILO = (
    "The example loader released with DiLo (arXiv 2004.06638): chance and level of the background, "
    "chance and radius of the mask's blur. Views are MoCo's, facebookresearch/moco, main_moco.py. "
    "Ours, not theirs: the background comes in after the resize, by the mask at the same places."
)


@preset
def simclr(
    size: int = 224,
    scale: Range = (0.08, 1.0),
    strength: float = 1.0,
    blur: float = 0.5,
    short_kernel: bool = True,
) -> Recipe:
    """Two views with strong jitter and blur.

    size: side of a view in pixels
    scale: range of the share of the image's area that a view covers
    strength: of the colour jitter
    blur: probability of blurring; use 0 for images as small as CIFAR's
    short_kernel: blur with as many taps as a tenth of the side, instead of all, as solo-learn does
    """
    colour = Colour(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    taps = min(2 * (size // 10 // 2) + 1, 61) if short_kernel else None
    views = Views("views", 2, size, Crop(scale), colour=colour, blur=Blur(blur, kernel=taps))
    return Recipe(
        (replace(views, interpolation="bicubic"),),
        "simclr",
        "google-research/simclr, data_util.py. Ours, not theirs: torchvision's law for crops, "
        "antialiasing, and ImageNet's mean and std, where theirs leaves values between 0 and 1.",
    )


@preset
def vicreg(
    size: int = 224, scale: Range = (0.08, 1.0), alike: bool = False, blur: bool = True
) -> Recipe:
    """Two views: one always blurred, the other rarely blurred and sometimes solarised.

    size: side of a view in pixels
    scale: range of the share of the image's area that a view covers
    alike: both views by one law, never blurred and sometimes solarised, as solo-learn's for CIFAR
    blur: False blurs no view, as in solo-learn's asymmetric views for CIFAR
    """
    views = Views("views", 2, size, Crop(scale), colour=MILD, interpolation="bicubic")
    chances = Blur((1.0, 0.1)) if blur else None
    two_laws = replace(views, blur=chances, solarise=(0.0, 0.2))
    return Recipe(
        (replace(views, solarise=0.1) if alike else two_laws,),
        "vicreg",
        "facebookresearch/vicreg, augmentations.py; alike: solo-learn, "
        "scripts/pretrain/cifar/vicreg.yaml; blur=False: augmentations/asymmetric.yaml there.",
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

    local_crops: how many local crops, 0 for none
    global_scale: range of the share of the image's area that a global crop covers
    local_scale: the same for a local crop
    global_size: side of a global crop in pixels
    local_size: side of a local crop in pixels: seven patches of 14; a ViT/16 needs 96
    global_crops: how many global crops
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
        "rbalestr-lab/lejepa, README. The blur's radius, which is not given there, is our choice.",
    )


@preset
def gtsa(
    local_crops: int = 8,
    global_scale: Range = (0.3, 1.0),
    local_scale: Range = (0.1, 0.3),
    global_size: int = 224,
    local_size: int = 96,
) -> Recipe:
    """Crops that overlap every global crop; rotated by quarter turns, never flipped.

    local_crops: how many local crops, 0 for none
    global_scale: range of the share of the image's area that a global crop covers
    local_scale: the same for a local crop
    global_size: side of a global crop in pixels
    local_size: side of a local crop in pixels
    """
    crops = Views(
        "global",
        2,
        global_size,
        Crop(global_scale, min_overlap=0.02),
        flip=0.0,
        turns=True,
        colour=STRONG,
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
        "bok3948/GTSA, the released pre-training code. Ours, not theirs: a crop without enough "
        "overlap is drawn anew 50 times at most and then placed where it overlaps.",
    )


@preset
def bagssl(
    patches: int = 2,
    size: int = 32,
    scale: float = 0.2,
    short_side: int | None = None,
    solarise: float = 0.0,
) -> Recipe:
    """Square patches of one fixed scale, augmented independently.

    patches: how many patches of each image
    size: side of a patch in pixels
    scale: share of the image's area that a patch covers
    short_side: for photos: cut patches from the image resized to this, instead of by scale
    solarise: probability of solarising a patch, 0.1 in solo-learn's VICReg for CIFAR
    """
    views = Views("patches", patches, size, Crop((scale, scale), (1.0, 1.0)), solarise=solarise)
    if short_side is None:
        colour = Colour(0.4, 0.4, 0.4, 0.1)
        views = replace(views, colour=colour, mean=CIFAR_MEAN, std=CIFAR_STD)
    else:
        alternating = tuple((1.0, 0.1)[i % 2] for i in range(patches))
        views = replace(views, crop=Window(short_side), colour=MILD, blur=Blur(alternating))
    return Recipe(
        (views,),
        "bagssl",
        "The scale of 0.2 for CIFAR is recalled from the paper (arXiv 2206.08954) and unverified. "
        "Colour and normalisation for CIFAR are those of the same group's NMCE code. The paper's "
        "pipeline for photos is not known to us: windows with VICReg's colour, and its two chances "
        "of blur turn about, are our choice.",
    )


@preset
def emp_ssl(patches: int = 20, size: int = 32, scale: float = 0.25) -> Recipe:
    """Many patches of one fixed scale, augmented independently.

    patches: how many patches of each image
    size: side of a patch in pixels; above 32, crops are those for ImageNet: not square, bicubic
    scale: share of the image's area that a patch covers
    """
    views = Views(
        "patches",
        patches,
        size,
        Crop((scale, scale), (1.0, 1.0)),
        colour=Colour(0.4, 0.4, 0.4, 0.2),
        blur=Blur(0.1),
        solarise=0.1,
        mean=HALF,
        std=HALF,
    )
    if size > 32:
        views = replace(views, crop=Crop((scale, scale)), interpolation="bicubic")
    return Recipe(
        (views,), "emp_ssl", "tsb0601/EMP-SSL, dataset/aug.py for 32 pixels, aug4img.py for 224."
    )


@preset
def selfie(size: int = 32, patch: int | None = None) -> Recipe:
    """One image cut into a grid of patches.

    size: side of the image in pixels; up to 64 it is shifted, as for CIFAR, above it is cropped
    patch: side of a patch in pixels; 8 for images up to 64 pixels and 32 above, unless given
    """
    small = size <= 64
    patch = patch or (8 if small else 32)
    if size % patch:
        raise MillError(f"selfie: patch must divide size, but {patch} does not divide {size}")
    cells = size // patch
    views = Views("patches", 1, patch, Grid(cells, cells, Shift(4) if small else Crop()))
    return Recipe(
        (replace(views, mean=CIFAR_MEAN, std=CIFAR_STD) if small else views,),
        "selfie",
        "Grids of 8-pixel and 32-pixel patches: the paper, arXiv 1906.02940, by way of summaries. "
        "Flips and shifts by 4 for CIFAR are an independent re-implementation's. The paper's "
        "augmentation for photos is not known to us: random resized crops are our choice.",
    )


@preset
def eval(size: int = 224, short_side: int = 256, interpolation: str = "bilinear") -> Recipe:
    """Centre crop for evaluation; nothing is random.

    size: side of the crop in pixels
    short_side: the image is first resized until its shorter side has this many pixels
    interpolation: bilinear or bicubic
    """
    view = Views("image", 1, size, Centre(short_side), flip=0.0, interpolation=interpolation)
    return Recipe((view,), "eval", "torchvision's Resize and CenterCrop, as used for ImageNet.")
