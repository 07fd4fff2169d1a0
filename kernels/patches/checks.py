"""What is said to those who give the faces something else than these take."""

from __future__ import annotations

from collections.abc import Sequence

import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
NORMALISE = ("none", "each", "mean")

Shapes = list[tuple[int, int]]


def check_images(
    images: torch.Tensor | Sequence[torch.Tensor],
    size: int,
    stride: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype,
) -> tuple[Shapes, torch.device]:
    """Heights and widths of all images, and where they are."""
    if size < 1 or stride < 1:
        raise ValueError(f"grid takes a size and a stride of 1 or more, not {size} and {stride}")
    if dtype not in FLOATS:
        raise ValueError(f"grid makes patches of float32, float16 or bfloat16, not {dtype}")
    if isinstance(images, torch.Tensor):
        shapes, channels = _check_batch(images)
    else:
        shapes, channels = _check_list(images)
    for number, (height, width) in enumerate(shapes):
        if min(height, width) < size:
            raise ValueError(
                f"image {number} is {height} x {width}, which no window of {size} x {size} fits "
                "into: leave it out, enlarge it, or take smaller patches"
            )
    if (mean is None) != (std is None):
        raise ValueError("grid takes mean and std together: give both or neither")
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            raise ValueError(
                f"grid takes {name} as one number for each of {channels} channels, not {values}"
            )
    return shapes, images[0].device


def _check_batch(images: torch.Tensor) -> tuple[Shapes, int]:
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] == 0:
        raise ValueError(
            f"grid takes one tensor of images as [B, C, H, W], not {tuple(images.shape)}: "
            "give images of unlike sizes as a list of [H, W, C]"
        )
    if images.dtype not in (torch.uint8, *FLOATS):
        raise ValueError(f"grid takes images of uint8 or floats, not {images.dtype}: convert them")
    b, c, h, w = images.shape
    return [(h, w)] * b, c


def _check_list(images: Sequence[torch.Tensor]) -> tuple[Shapes, int]:
    if not len(images):
        raise ValueError("grid takes at least one image, not an empty list")
    first = images[0]
    for number, image in enumerate(images):
        if image.ndim != 3 or image.dtype != torch.uint8 or image.shape[2] == 0:
            raise ValueError(
                f"grid takes a list of uint8 images [H, W, C], but image {number} is "
                f"{image.dtype} {tuple(image.shape)}: give floats as one tensor [B, C, H, W]"
            )
        if image.shape[2] != first.shape[2] or image.device != first.device:
            raise ValueError(
                f"image {number} has {image.shape[2]} channels on {image.device} and the first "
                f"one {first.shape[2]} on {first.device}: give images of one kind on one device"
            )
    return [(image.shape[0], image.shape[1]) for image in images], first.shape[2]


def check_embeddings(
    embeddings: torch.Tensor, normalise: str, weights: torch.Tensor | None = None
) -> None:
    if embeddings.ndim != 2 or embeddings.shape[1] == 0 or embeddings.dtype not in FLOATS:
        raise ValueError(
            f"aggregate takes embeddings as rows [P, d] of float32, float16 or bfloat16, not "
            f"{embeddings.dtype} {tuple(embeddings.shape)}: flatten or convert them"
        )
    if normalise not in NORMALISE:
        raise ValueError(f"normalise is one of {', '.join(NORMALISE)}, not {normalise!r}")
    if weights is not None and (
        weights.shape != embeddings.shape[:1]
        or weights.dtype not in FLOATS
        or weights.device != embeddings.device
    ):
        raise ValueError(
            f"aggregate takes weights as {len(embeddings)} floats on {embeddings.device}, one for "
            f"each embedding, not {weights.dtype} {tuple(weights.shape)} on {weights.device}"
        )


def check_counts(counts: torch.Tensor | Sequence[int], images: int | None) -> torch.Tensor:
    """They, as int64."""
    if not isinstance(counts, torch.Tensor):
        counts = torch.tensor([int(count) for count in counts], dtype=torch.int64)
    if counts.ndim != 1 or counts.is_floating_point():
        raise ValueError(
            f"aggregate takes counts as whole numbers [B], not {counts.dtype} {tuple(counts.shape)}"
        )
    if images is not None and images != len(counts):
        raise ValueError(f"there are {len(counts)} counts for {images} images: give one for each")
    return counts.long()


def check_index(embeddings: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """It, as int64."""
    if (
        index.shape != embeddings.shape[:1]
        or index.is_floating_point()
        or index.device != embeddings.device
    ):
        raise ValueError(
            f"an index is {len(embeddings)} whole numbers on {embeddings.device}, the image of "
            f"each embedding, not {index.dtype} {tuple(index.shape)} on {index.device}"
        )
    return index.long().contiguous()
