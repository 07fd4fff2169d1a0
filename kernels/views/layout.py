"""Where each view of a batch lies in the batch's flat memory, the same for every renderer.

Group after group; inside a group view-major, [count, batch, ...], so that one view of all
samples is contiguous. A view is [3, size, size], or [size, size, 3] where channels come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.kernels.views.decisions import Target

if TYPE_CHECKING:
    import torch

# One view of sample b is out[first + b * step:], made so: scale[c] * value + shift[c].
SLOT = np.dtype(
    [
        ("first", "i8"),
        ("step", "i8"),
        ("size", "i8"),
        ("bicubic", "i8"),
        ("scale", "f4", 3),
        ("shift", "f4", 3),
    ]
)


def slots(targets: Sequence[Target], batch: int, as_bytes: bool, unit: float = 1.0) -> np.ndarray:
    """One SLOT per view, for values of which `unit` stands for 1.0; bytes are not normalised."""
    table = np.zeros(sum(target.count for target in targets), SLOT)
    at = view = 0
    for target in targets:
        step = 3 * target.size**2
        mean, std = np.array(target.mean, np.float32), np.array(target.std, np.float32)
        scale = np.full(3, 255 / unit) if as_bytes else 1 / (unit * std)
        shift = np.zeros(3) if as_bytes else -mean / std
        for _ in range(target.count):
            table[view] = (at, step, target.size, target.bicubic, scale, shift)
            at += batch * step
            view += 1
    return table


def elements(targets: Sequence[Target], batch: int) -> int:
    """How many numbers a batch of these targets holds."""
    return sum(3 * target.count * target.size**2 for target in targets) * batch


def shaped(
    flat: torch.Tensor, targets: Sequence[Target], batch: int, channels_last: bool
) -> dict[str, torch.Tensor]:
    """The groups of a flat batch as [batch, count, 3, size, size]; a view is contiguous memory."""
    views: dict[str, Any] = {}
    at = 0
    for target in targets:
        n, size = target.count, target.size
        part = flat[at : at + n * batch * 3 * size * size]
        at += len(part)
        if channels_last:
            part = part.view(n, batch, size, size, 3).permute(0, 1, 4, 2, 3)
        else:
            part = part.view(n, batch, 3, size, size)
        views[target.name] = part.transpose(0, 1)
    return views
