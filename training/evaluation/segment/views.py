"""Views of labelled images: mmsegmentation's pipeline for ADE20K, on both image and mask.

In training: random scale, random crop not filled by one class, flip and colour distortion. In
testing: the whole image at one scale.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import pad
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from patchmill.training.evaluation.segment.labelled import IGNORED, Sample

Size = tuple[int, int]  # height, width

SCALES = (0.5, 2.0)
LONG = 4  # maximum ratio of the long side to the short one: 2048 for 512
MOST_OF_ONE_CLASS = 0.75  # of a crop; with more, it is redrawn, up to TRIES times
TRIES = 10


def training_view(
    sample: Sample, size: Size, photometric: bool, draws: np.random.Generator
) -> Sample:
    """Return a random crop of `size`; outside the image it is black and ignored."""
    scaled = _resize(sample, size, draws.uniform(*SCALES))
    image, mask = _crop(scaled, size, draws)
    if draws.random() < 0.5:
        image, mask = F.horizontal_flip(image), F.horizontal_flip(mask)
    if photometric:
        image = distort(image, draws)
    return Sample(image, mask)


def whole_view(sample: Sample, size: Size) -> Sample:
    """Return the whole image, resized to the short side of `size`."""
    return _resize(sample, size, 1.0)


def pad_to_multiple(x: torch.Tensor, multiple: int, value: float = 0.0) -> torch.Tensor:
    """Pad [..., H, W] at the bottom and right to multiples."""
    height, width = x.shape[-2:]
    return pad(x, (0, -width % multiple, 0, -height % multiple), value=value)


def distort(image: tv_tensors.Image, draws: np.random.Generator) -> tv_tensors.Image:
    """PhotoMetricDistortion: brightness, contrast, saturation and hue, each with probability 1/2.

    Contrast is a factor, applied before or after saturation and hue.
    """
    pixels: torch.Tensor = image.as_subclass(torch.Tensor)
    if draws.random() < 0.5:
        pixels = (pixels.float() + draws.uniform(-32, 32)).clamp(0, 255).round().to(torch.uint8)
    contrast = draws.uniform(0.5, 1.5) if draws.random() < 0.5 else 1.0
    first = draws.random() < 0.5
    if first:
        pixels = F.adjust_brightness(pixels, contrast)  # a factor, too
    if draws.random() < 0.5:
        pixels = F.adjust_saturation(pixels, draws.uniform(0.5, 1.5))
    if draws.random() < 0.5:
        pixels = F.adjust_hue(pixels, draws.uniform(-0.1, 0.1))
    if not first:
        pixels = F.adjust_brightness(pixels, contrast)
    return tv_tensors.Image(pixels)


def _resize(sample: Sample, size: Size, scale: float) -> Sample:
    target = list(_scaled(sample.mask.shape[-2:], size, scale))
    return Sample(
        F.resize(sample.image, target, antialias=True),  # bilinear
        F.resize(sample.mask, target),  # nearest, as it is a Mask
    )


def _scaled(shape: torch.Size | Size, size: Size, scale: float) -> Size:
    """Return height and width, in proportion, with a short side `scale` times that of `size`.

    A very long image is made smaller, so that its long side fits.
    """
    short = scale * min(size)
    factor = min(short / min(shape), LONG * short / max(shape))
    height, width = (max(1, int(side * factor + 0.5)) for side in shape)
    return height, width


def _crop(sample: Sample, size: Size, draws: np.random.Generator) -> Sample:
    image, mask = sample
    for _ in range(TRIES):
        top, left = (
            int(draws.integers(max(side - wanted, 0) + 1))
            for side, wanted in zip(mask.shape[-2:], size, strict=True)
        )
        window = (slice(top, top + size[0]), slice(left, left + size[1]))
        if _is_varied(mask[window]):
            break
    cut = mask[window]
    below, right = size[0] - cut.shape[0], size[1] - cut.shape[1]
    return Sample(
        tv_tensors.Image(pad(image[(..., *window)], (0, right, 0, below))),
        tv_tensors.Mask(pad(cut, (0, right, 0, below), value=IGNORED)),
    )


def _is_varied(mask: torch.Tensor) -> bool:
    counts = torch.bincount(mask.flatten(), minlength=IGNORED + 1)[:IGNORED]
    return int((counts > 0).sum()) > 1 and int(counts.max()) < MOST_OF_ONE_CLASS * int(counts.sum())
