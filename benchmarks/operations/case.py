"""`Case`: one operation on inputs of one size, with its contenders and its roofline floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

OURS, EAGER, COMPILED = "patchmill", "eager", "torch.compile"

Run = Callable[[], object]


@dataclass(frozen=True)
class Floor:
    """Least bytes moved and operations computed by any implementation, forward plus backward."""

    bytes: float  # moved between memory and processor
    operations: float = 0.0  # multiplications and additions of matrix products

    def seconds(self, bandwidth: float, rate: float) -> float:
        """Roofline time at these bytes and operations per second."""
        return max(self.bytes / bandwidth, self.operations / rate)


@dataclass(frozen=True)
class Case:
    operation: str
    shape: str
    contenders: Mapping[str, Run]  # ours, eager PyTorch, and others
    floor: Floor
    backward: bool = True


def with_backward(
    function: Callable[..., torch.Tensor], *inputs: torch.Tensor, wanted: Sequence[torch.Tensor]
) -> Run:
    """A run of the function and then of its gradients by the `wanted` inputs."""
    return lambda: torch.autograd.grad(function(*inputs).sum(), wanted)


def trio(
    ours: Callable[..., torch.Tensor],
    eager: Callable[..., torch.Tensor],
    *inputs: torch.Tensor,
    wanted: Sequence[torch.Tensor],
) -> dict[str, Run]:
    """Ours, eager PyTorch and torch.compile of that, forward and backward."""
    return {
        OURS: with_backward(ours, *inputs, wanted=wanted),
        EAGER: with_backward(eager, *inputs, wanted=wanted),
        COMPILED: with_backward(torch.compile(eager, dynamic=False), *inputs, wanted=wanted),
    }


def noise(*shape: int, device: torch.device, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype)
