"""Views to change, and operations applied to them outside of a loader."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchmill.kernels.views.decisions import Target
from patchmill.loaders.operation import Operation
from patchmill.loaders.operations import Draws
from patchmill.loaders.plan import streams
from patchmill.loaders.recipe import IMAGENET_MEAN, IMAGENET_STD

CPU = torch.device("cpu")


def target(size: int, count: int = 1) -> Target:
    return Target("views", count, size, False, IMAGENET_MEAN, IMAGENET_STD)


def draws_of(count: int, size: int = 16, seed: int = 0, epoch: int = 0) -> Draws:
    """Draws of view 0 of the first samples."""
    ids, views = np.arange(count), np.zeros(count, np.int64)
    return Draws(target(size), seed, epoch, ids, views, streams.EXTRA, CPU)


def photo_like(count: int, size: int, seed: int = 0) -> Tensor:
    """Smooth 8-bit pictures with edges, float32 in 0..1: [count, 3, size, size]."""
    numbers = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 5, 5), generator=numbers)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    smooth[..., size // 3 :, : size // 2] *= 0.6
    return (smooth * 255).round() / 255


def apply(operation: Operation, views: Tensor, **draws: Any) -> Tensor:
    """The changed views; `views` stays as it is."""
    return operation(views.clone(), draws_of(len(views), views.shape[-1], **draws))
