"""Layout of a batch in flat memory, shared by all renderers.

Groups follow each other; each is view-major, [count, batch, ...], so that one view of all samples
is contiguous. A view is [3, size, size], or [size, size, 3] for channels-last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.kernels.views.decisions import Target

if TYPE_CHECKING:
    import torch

# A view of sample b starts at out[offset + b * stride] and holds scale[c] * value + shift[c].
SLOT = np.dtype(
    [
        ("offset", "i8"),
        ("stride", "i8"),
        ("size", "i8"),
        ("bicubic", "i8"),
        ("scale", "f4", 3),
        ("shift", "f4", 3),
    ]
)


def slots(targets: Sequence[Target], batch: int, as_bytes: bool, unit: float = 1.0) -> np.ndarray:
    """One SLOT per view, for renderer values where `unit` means 1.0; bytes are not normalised."""
    table = np.zeros(sum(target.count for target in targets), SLOT)
    offset = view = 0
    for target in targets:
        stride = 3 * target.size**2
        mean, std = np.array(target.mean, np.float32), np.array(target.std, np.float32)
        scale = np.full(3, 255 / unit) if as_bytes else 1 / (unit * std)
        shift = np.zeros(3) if as_bytes else -mean / std
        for _ in range(target.count):
            table[view] = (offset, stride, target.size, target.bicubic, scale, shift)
            offset += batch * stride
            view += 1
    return table


def elements(targets: Sequence[Target], batch: int) -> int:
    """Elements of a flat batch."""
    return sum(3 * target.count * target.size**2 for target in targets) * batch


def views_by_group(
    flat: torch.Tensor, targets: Sequence[Target], batch: int, channels_last: bool
) -> dict[str, torch.Tensor]:
    """Split a flat batch into groups [batch, count, 3, size, size]; each view is contiguous."""
    views: dict[str, Any] = {}
    offset = 0
    for target in targets:
        n, size = target.count, target.size
        part = flat[offset : offset + n * batch * 3 * size * size]
        offset += len(part)
        if channels_last:
            part = part.view(n, batch, size, size, 3).permute(0, 1, 4, 2, 3)
        else:
            part = part.view(n, batch, 3, size, size)
        views[target.name] = part.transpose(0, 1)
    return views
