"""Argument checks for `grid`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Shapes = list[tuple[int, int]]


def check_images(
    images: torch.Tensor | Sequence[torch.Tensor],
    size: int,
    stride: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype,
) -> tuple[Shapes, torch.device]:
    """Validate; return heights and widths of all images, and their device."""
    if size < 1 or stride < 1:
        raise ValueError(f"grid takes a size and a stride of 1 or more, not {size} and {stride}")
    if dtype not in FLOATS:
        raise ValueError(f"grid returns patches of float32, float16 or bfloat16, not {dtype}")
    if isinstance(images, torch.Tensor):
        shapes, channels = _check_batch(images)
    else:
        shapes, channels = _check_list(images)
    for number, (height, width) in enumerate(shapes):
        if min(height, width) < size:
            raise ValueError(
                f"image {number} is {height} x {width}, smaller than a window of {size} x {size}: "
                "skip it, enlarge it, or use smaller patches"
            )
    if (mean is None) != (std is None):
        raise ValueError("grid takes mean and std together: pass both or neither")
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            raise ValueError(
                f"grid takes {name} as one number for each of {channels} channels, not {values}"
            )
    return shapes, images[0].device


def _check_batch(images: torch.Tensor) -> tuple[Shapes, int]:
    """Heights and widths, and channels."""
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] == 0:
        raise ValueError(
            f"grid takes one tensor of images as [B, C, H, W], not {tuple(images.shape)}: "
            "pass images of different sizes as a list of [H, W, C]"
        )
    if images.dtype not in (torch.uint8, *FLOATS):
        raise ValueError(f"grid takes images of uint8 or floats, not {images.dtype}: convert them")
    b, c, h, w = images.shape
    return [(h, w)] * b, c


def _check_list(images: Sequence[torch.Tensor]) -> tuple[Shapes, int]:
    """Heights and widths, and channels."""
    if not len(images):
        raise ValueError("grid takes at least one image, not an empty list")
    first = images[0]
    for number, image in enumerate(images):
        if image.ndim != 3 or image.dtype != torch.uint8 or image.shape[2] == 0:
            raise ValueError(
                f"grid takes a list of uint8 images [H, W, C], but image {number} is "
                f"{image.dtype} {tuple(image.shape)}: pass floats as one tensor [B, C, H, W]"
            )
        if image.shape[2] != first.shape[2] or image.device != first.device:
            raise ValueError(
                f"image {number} has {image.shape[2]} channels on {image.device} and the first "
                f"one {first.shape[2]} on {first.device}: pass images of one kind on one device"
            )
    return [(image.shape[0], image.shape[1]) for image in images], first.shape[2]
