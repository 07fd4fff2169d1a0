"""NT-Xent over the views of all ranks."""

from __future__ import annotations

import torch

from patchmill.kernels import contrast
from patchmill.training.ranks import distributed


def nt_xent(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent of unit vectors z [V, B, d]: this rank's anchors against the views of all ranks.

    With more than two views, the log-ratio is averaged over an anchor's positives.
    """
    world = distributed.current()
    if world.size == 1:
        return contrast.nt_xent(z, temperature)
    all_z = distributed.gather(z.transpose(0, 1)).transpose(0, 1)
    return contrast.nt_xent(z, temperature, all_z, world.rank * z.shape[1])
