"""NT-Xent over the views of all ranks."""

from __future__ import annotations

import torch

from patchmill.kernels import contrast
from patchmill.training.ranks import distributed


def nt_xent(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """z [V, B, d] of unit length: this rank's anchors, against the views of all ranks.

    With more than two views, the log-ratio is averaged over an anchor's positives.
    """
    world = distributed.current()
    if world.size == 1:
        return contrast.nt_xent(z, temperature)
    everyone = distributed.gather(z.transpose(0, 1)).transpose(0, 1)
    return contrast.nt_xent(z, temperature, everyone, world.rank * z.shape[1])
