"""Presets with two equal views."""

from __future__ import annotations

from dataclasses import replace

from patchmill.loaders.presets.registry import CIFAR_MEAN, CIFAR_STD, MILD, preset, simclr_jitter
from patchmill.loaders.recipe import Blur, Colour, CopyPaste, Crop, Range, Recipe, Views


@preset
def moco_v1(size: int = 224, scale: Range = (0.2, 1.0)) -> Recipe:
    """Two views, sometimes greyscale, then always jittered.

    size: side of a view in pixels
    scale: range of a view's area, as a share of the image's
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
    scale: range of a view's area, as a share of the image's
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
    scale: range of a view's area, as a share of the image's
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
    scale: range of a view's area, as a share of the image's
    paste: probability that a view has another background
    background: grey, texture or images
    blur: probability of blurring a view
    cifar: normalise by CIFAR's mean and std instead of ImageNet's
    """
    (views,) = moco_v2(size, scale, blur, cifar).views
    return Recipe((replace(views, paste=CopyPaste(paste, background)),), "dilo", _DILO)


_DILO = (
    "The example loader released with DiLo (arXiv 2004.06638): probability and level of the "
    "background, probability and radius of the mask's blur. Views are MoCo's, "
    "facebookresearch/moco, main_moco.py. Ours differs: the background is composited after the "
    "resize, by the mask at the same places."
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
    scale: range of a view's area, as a share of the image's
    strength: of the colour jitter
    blur: probability of blurring; use 0 for images as small as CIFAR's
    short_kernel: blur with a kernel of a tenth of the side; False uses all taps, as solo-learn does
    """
    colour = simclr_jitter(strength)
    taps = min(2 * (size // 10 // 2) + 1, 61) if short_kernel else None
    views = Views("views", 2, size, Crop(scale), colour=colour, blur=Blur(blur, kernel=taps))
    return Recipe(
        (replace(views, interpolation="bicubic"),),
        "simclr",
        "google-research/simclr, data_util.py. Ours differs: torchvision's law for crops, "
        "antialiasing, and ImageNet's mean and std, while theirs leaves values between 0 and 1.",
    )


@preset
def vicreg(
    size: int = 224, scale: Range = (0.08, 1.0), alike: bool = False, blur: bool = True
) -> Recipe:
    """Two views: one always blurred, the other rarely blurred and sometimes solarised.

    size: side of a view in pixels
    scale: range of a view's area, as a share of the image's
    alike: draw both views alike, never blurred and sometimes solarised, as solo-learn for CIFAR
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
