"""MoCo's queue: the last K keys, first in, first out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import normalize


class Queue(nn.Module):
    """A ring buffer of keys. It starts with random unit vectors, equal for equal seeds."""

    keys: torch.Tensor  # [K, d] float32
    place: torch.Tensor  # number of keys pushed so far; the name is a checkpoint key

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", normalize(torch.randn(count, dim)))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @property
    def is_full(self) -> torch.Tensor:
        """Bool scalar on the queue's device: no random vector is left.

        Older checkpoints hold the position in the ring: their queue counts as full one turn later.
        """
        return self.place >= len(self.keys)

    @torch.no_grad()
    def push(self, keys: torch.Tensor) -> None:
        """Overwrite the oldest keys with `keys` [n, d]."""
        offsets = torch.arange(len(keys), device=keys.device)
        self.keys.index_copy_(0, (self.place + offsets) % len(self.keys), keys.to(self.keys.dtype))
        self.place.add_(len(keys))
