"""`Draws`: the random numbers that an operation gets for the views it applies to."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from patchmill.kernels.common.upload import upload
from patchmill.kernels.views.decisions import Target
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.plan import streams

_WORD = 0xFFFFFFFF


class Draws:
    """Random numbers of N views for one operation: each call draws new ones.

    A view's numbers depend only on seed, epoch, sample id, view, operation and the number of
    earlier calls. So an operation must make the same calls, in the same order, for any views.
    `group` has the name, size, mean and std of the view group.
    """

    def __init__(
        self,
        group: Target,
        seed: int,
        epoch: int,
        ids: np.ndarray,
        views: np.ndarray,
        operation: int,
        device: torch.device,
        calls: int = 0,
    ) -> None:
        """Draw for `views`, their numbers within the recipe, after `calls` earlier calls."""
        self.group, self.device = group, device
        self._seed, self._epoch, self._ids, self._views = np.uint64(seed), epoch, ids, views
        self._operation, self._calls = operation, calls

    def __len__(self) -> int:
        """Number of views, N."""
        return len(self._ids)

    def numbers(self, count: int = 1) -> np.ndarray:
        """Uniform in [0, 1): float64 [N, count] in NumPy, for decisions made in Python."""
        return self._uniform_numpy(count).astype(np.float64)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform in [low, high): float32 [N, *shape] on the device of the views."""
        unit = self._unit(math.prod(shape)).view(len(self), *shape)
        return unit if (low, high) == (0.0, 1.0) else low + (high - low) * unit

    def normal(self, *shape: int) -> Tensor:
        """Standard normal: float32 [N, *shape] on the device of the views.

        Box-Muller transform: pairs sqrt(-2 ln(1 - u)) (cos, sin)(2 pi v).
        """
        count = math.prod(shape)
        half = -(-count // 2)
        numbers = self._unit(2 * half).view(len(self), 2, half)
        # One view at a time on a CPU: stays in cache, and is bitwise equal in any batch.
        for row in numbers.split(1 if self.device.type == "cpu" else len(self)):
            u, v = row.unbind(1)
            radius = u.neg_().add_(1).log_().mul_(-2).sqrt_()
            cos = v.mul_(2 * math.pi).cos()
            v.sin_().mul_(radius)
            u.mul_(cos)
        return numbers.view(len(self), -1)[:, :count].reshape(len(self), *shape)

    def _unit(self, count: int) -> Tensor:
        if self.device.type == "cpu":
            return torch.from_numpy(self._uniform_numpy(count))
        return uniform_on_device(to_device(self._keys().astype(np.int64), self.device), count)

    def _uniform_numpy(self, count: int) -> np.ndarray:
        numbers = np.empty((len(self), count), np.float32)
        streams.fill(self._keys(), numbers)
        return numbers

    def _keys(self) -> np.ndarray:
        """Keys of the streams of the next call."""
        call, self._calls = self._calls, self._calls + 1
        if call >= streams.MOST_CALLS:
            raise MillError(
                f"an operation may draw at most {streams.MOST_CALLS} times: "
                "draw more numbers per call"
            )
        keys = np.empty((len(self), 2), np.uint64)
        streams.stream_keys(
            self._seed, self._epoch, self._ids, self._views, self._operation, call, keys
        )
        return keys


def uniform_on_device(keys: Tensor, count: int) -> Tensor:
    """`streams.fill` in torch, on any device: the same numbers [N, count]; keys int64 [N, 2]."""
    first = torch.arange(-(-count // 4), device=keys.device).expand(len(keys), -1)
    zero = torch.zeros_like(first)
    c0, c1, c2, c3 = first, zero, zero, zero
    k0, k1 = keys[:, :1], keys[:, 1:]
    for _ in range(10):
        high_0, low_0 = _product(c0, 0xD2511F53)
        high_2, low_2 = _product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high_2 ^ c1 ^ k0, low_2, high_0 ^ c3 ^ k1, low_0
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    words = torch.stack((c0, c1, c2, c3), -1).flatten(1)[:, :count]
    return (words >> 8).float() * 2.0**-24


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low word of the product of two 32-bit words, in int64, which wraps around."""
    product = word * factor
    return (product >> 32) & _WORD, product & _WORD


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy a small array to the device without waiting for it."""
    return upload(torch.from_numpy(array), device)
