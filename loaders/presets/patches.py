"""Presets with patches."""

from __future__ import annotations

from dataclasses import replace

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.presets.registry import (
    CIFAR_MEAN,
    CIFAR_STD,
    HALF,
    MILD,
    preset,
    simclr_jitter,
)
from patchmill.loaders.recipe import Blur, Colour, Crop, Grid, Recipe, Shift, Views, Window


@preset
def bagssl(
    patches: int = 2,
    size: int = 32,
    scale: float = 0.2,
    short_side: int | None = None,
    solarise: float = 0.0,
    strength: float = 0.5,
) -> Recipe:
    """Square patches of one fixed scale, augmented independently.

    patches: number of patches per image
    size: side of a patch in pixels
    scale: share of the image's area that a patch covers
    short_side: for photos: cut patches from the image resized to this, instead of by scale
    solarise: probability of solarising a patch, 0.1 in solo-learn's VICReg for CIFAR
    strength: of the colour jitter for patches cut by scale, 1 for SimCLR's
    """
    views = Views("patches", patches, size, Crop((scale, scale), (1.0, 1.0)), solarise=solarise)
    if short_side is None:
        views = replace(views, colour=simclr_jitter(strength), mean=CIFAR_MEAN, std=CIFAR_STD)
    else:
        alternating = tuple((1.0, 0.1)[i % 2] for i in range(patches))
        views = replace(views, crop=Window(short_side), colour=MILD, blur=Blur(alternating))
    return Recipe(
        (views,),
        "bagssl",
        "The scale of 0.2 for CIFAR is recalled from the paper (arXiv 2206.08954) and unverified. "
        "Colour and normalisation for CIFAR are those of the same group's NMCE code. The paper's "
        "pipeline for photos is unknown to us: windows with VICReg's colour, and its two blur "
        "probabilities in alternation, are our choice.",
    )


@preset
def emp_ssl(patches: int = 20, size: int = 32, scale: float = 0.25) -> Recipe:
    """Many patches of one fixed scale, augmented independently.

    patches: number of patches per image
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
def selfie(size: int = 32, patch: int | None = None, jitter: float = 0.0) -> Recipe:
    """One image, cut into a grid of patches.

    size: side of the image in pixels; up to 64, it is shifted, as for CIFAR; above, it is cropped
    patch: side of a patch in pixels; by default 8 for images up to 64 pixels, and 32 above
    jitter: strength of colour jitter, drawn for each patch, up to 1; not in the paper
    """
    small = size <= 64
    patch = patch or (8 if small else 32)
    if size % patch:
        raise MillError(f"selfie: patch must divide size, but {patch} does not divide {size}")
    cells = size // patch
    views = Views("patches", 1, patch, Grid(cells, cells, Shift(4) if small else Crop()))
    if jitter:
        change = 0.8 * jitter
        views = replace(views, colour=Colour(change, change, change, 0.5 * jitter, p=1.0))
    return Recipe(
        (replace(views, mean=CIFAR_MEAN, std=CIFAR_STD) if small else views,),
        "selfie",
        "Grids of 8-pixel and 32-pixel patches: the paper, arXiv 1906.02940, through summaries. "
        "Flips and shifts by 4 for CIFAR are an independent re-implementation's. The paper's "
        "augmentation for photos is unknown to us: random resized crops are our choice. So are "
        "jittered colours.",
    )
