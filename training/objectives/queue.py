"""MoCo's queue: the last K keys, first in, first out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import normalize


class Queue(nn.Module):
    """Begins with random unit vectors, the same on every rank if their generators are."""

    keys: torch.Tensor  # [K, d] float32
    place: torch.Tensor  # where the next key goes

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", normalize(torch.randn(count, dim)))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: torch.Tensor) -> None:
        """Put `keys` [n, d] in the places of the oldest."""
        steps = torch.arange(len(keys), device=keys.device)
        self.keys.index_copy_(0, (self.place + steps) % len(self.keys), keys.to(self.keys.dtype))
        self.place.add_(len(keys)).remainder_(len(self.keys))
