"""Measure differences between our views and those of PIL and torchvision for the same decisions.

    python tests/kernels/views/helpers_deviations.py [a folder of photos]

prints the table of docs/deviations.md, in 8-bit levels; a test checks it on synthetic images.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchvision.transforms.v2.functional as tv
from helpers_views import make_image, make_row, order_of, target
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from patchmill.kernels.views import reference
from patchmill.kernels.views.decisions import BRIGHTNESS, CONTRAST, HUE, SATURATION

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
SUFFIXES = (".jpg", ".jpeg")
PIL_OPERATIONS = {
    BRIGHTNESS: (tv.adjust_brightness, "brightness"),
    CONTRAST: (tv.adjust_contrast, "contrast"),
    SATURATION: (tv.adjust_saturation, "saturation"),
    HUE: (tv.adjust_hue, "hue"),
}


class Distance(NamedTuple):
    """Mean and largest absolute difference, in 8-bit levels."""

    mean: float
    worst: float


def synthetic_photos() -> list[np.ndarray]:
    return [make_image("photo", 300 + 25 * seed, 500 - 15 * seed, seed) for seed in range(6)]


def measure(images: list[np.ndarray]) -> dict[str, Distance]:
    """Name of the comparison -> difference."""
    views = [_crop(image, 224, "bicubic") for image in images]
    pil_images = [_to_pil(view) for view in views]
    views = [_tensor(pil_image) for pil_image in pil_images]  # whole levels, for both
    distances = {}
    for mode in MODES:
        distances[f"resized crop, {mode}, PIL"] = _distance(
            (_crop(image, 224, mode), _pil_crop(image, 224, mode)) for image in images
        )
        distances[f"resized crop, {mode}, torchvision uint8"] = _distance(
            (_crop(image, 224, mode), _tv_crop(image, 224, mode)) for image in images
        )
    for name, factors in {
        "brightness": (0.6, 1.4),
        "contrast": (0.6, 1.4),
        "saturation": (0.6, 1.4),
        "hue": (-0.1, 0.1),
    }.items():
        ours, theirs = getattr(reference, name), getattr(tv, f"adjust_{name}")
        distances[f"{name}, PIL"] = _distance(
            (ours(view, factor), theirs(pil_image, factor))
            for view, pil_image in zip(views, pil_images, strict=True)
            for factor in factors
        )
    distances["grey, PIL"] = _distance(
        (reference.grey(view), tv.rgb_to_grayscale(pil_image, 3))
        for view, pil_image in zip(views, pil_images, strict=True)
    )
    distances["grey, torchvision float"] = _distance(
        (reference.grey(view), tv.rgb_to_grayscale(view, 3)) for view in views
    )
    for sigma in (0.3, 0.5, 1.0, 2.0):
        distances[f"blur, sigma {sigma}, PIL"] = _distance(
            (_blur(view, sigma), pil_image.filter(ImageFilter.GaussianBlur(sigma)))
            for view, pil_image in zip(views, pil_images, strict=True)
        )
    for blurred in (False, True):
        distances[f"a whole DINO view, {'with' if blurred else 'without'} blur, PIL"] = _distance(
            _dino_pair(image, seed, blurred)
            for seed, image in enumerate(image for image in images for _ in range(4))
        )
    return distances


def _distance(pairs: Iterator[tuple[Tensor, Tensor | Image.Image]]) -> Distance:
    differences = [
        255 * (ours - (theirs if isinstance(theirs, Tensor) else _tensor(theirs))).abs()
        for ours, theirs in pairs
    ]
    mean = np.mean([difference.mean().item() for difference in differences])
    return Distance(float(mean), max(difference.max().item() for difference in differences))


def _crop(image: np.ndarray, size: int, mode: str) -> Tensor:
    row = make_row(image, size, **_box(image))
    return reference.render_view(image, row, target(size, mode == "bicubic"))


def _box(image: np.ndarray) -> dict[str, int]:
    height, width = image.shape[:2]
    return {
        "box_y": height // 10,
        "box_x": width // 7,
        "box_h": 3 * height // 4,
        "box_w": 2 * width // 3,
    }


def _pil_crop(image: np.ndarray, size: int, mode: str) -> Image.Image:
    box = _box(image).values()
    return tv.resized_crop(Image.fromarray(image), *box, [size, size], MODES[mode])


def _tv_crop(image: np.ndarray, size: int, mode: str) -> Tensor:
    levels = torch.from_numpy(image).permute(2, 0, 1)
    return tv.resized_crop(levels, *_box(image).values(), [size, size], MODES[mode]) / 255


def _blur(view: Tensor, sigma: float) -> Tensor:
    return reference.blur(view, sigma, int(np.ceil(3 * sigma)))


def _dino_pair(image: np.ndarray, seed: int, blurred: bool) -> tuple[Tensor, Image.Image]:
    """One DINO view with all colour operations, by us and by DINO's own code."""
    rng = np.random.default_rng(seed)
    order = [int(operation) for operation in rng.permutation(4)]
    factors = {
        "brightness": rng.uniform(0.6, 1.4),
        "contrast": rng.uniform(0.6, 1.4),
        "saturation": rng.uniform(0.8, 1.2),
        "hue": rng.uniform(-0.1, 0.1),
    }
    sigma = rng.uniform(0.1, 2.0) if blurred else 0.0
    solarise = int(rng.uniform() < 0.2)
    row = make_row(
        image,
        96,
        **_box(image),
        **factors,
        flip=1,
        order=order_of(*order),
        sigma=sigma,
        radius=int(np.ceil(3 * sigma)),
        solarise=solarise,
    )
    pil_image = tv.hflip(_pil_crop(image, 96, "bicubic"))
    for operation in order:
        adjust, name = PIL_OPERATIONS[operation]
        pil_image = adjust(pil_image, factors[name])
    if blurred:
        pil_image = pil_image.filter(ImageFilter.GaussianBlur(sigma))
    if solarise:
        pil_image = ImageOps.solarize(pil_image)
    return reference.render_view(image, row, target(96, bicubic=True)), pil_image


def _tensor(pil_image: Image.Image) -> Tensor:
    return tv.pil_to_tensor(pil_image) / 255


def _to_pil(view: Tensor) -> Image.Image:
    return tv.to_pil_image(view)


def main() -> None:
    images = synthetic_photos()
    if len(sys.argv) > 1:
        files = [f for f in sorted(Path(sys.argv[1]).rglob("*")) if f.suffix.lower() in SUFFIXES]
        images = [np.array(Image.open(file).convert("RGB")) for file in files[:100]]
    print("| compared with patchmill, same decisions | mean | worst |\n| --- | ---: | ---: |")
    for name, distance in measure(images).items():
        print(f"| {name} | {distance.mean:.2f} | {distance.worst:.1f} |")


if __name__ == "__main__":
    main()
