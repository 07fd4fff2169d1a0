"""Embeddings for the tests of bags, and tolerances."""

from __future__ import annotations

from collections.abc import Callable

import torch

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, *HALVES)

# On top of twice the error of plain PyTorch in the same dtype. Gradients are compared by norms; in
# 16 bits they cannot be more accurate than their own rounding.
NEAR = {torch.float32: 3e-7, torch.float16: 3e-4, torch.bfloat16: 2e-3}
VALUE_NEAR = 5e-7  # values are float32 for all types


def make(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Rows of many lengths, each bag around its own centre."""
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randn(*shape, generator=draws) + torch.randn(*shape[1:], generator=draws)
    lengths = torch.randn(*shape[:-1], 1, generator=draws).exp()
    return (rows * lengths).to(dtype)


def units(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1).to(dtype)


def value_and_grad(
    function: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values, and the gradient of a weighted sum of them (the first by 2), in float64."""
    z = z.detach().requires_grad_()
    values = function(z)
    weights = torch.linspace(2, 0.5, values.numel(), dtype=values.dtype, device=values.device)
    (gradient,) = torch.autograd.grad((values * weights.view(values.shape)).sum(), z)
    return values.detach().cpu().double(), gradient.cpu().double()


def relative_error(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Norm of the difference over the norm of the truth."""
    return float((found - truth).norm() / truth.norm().clamp(min=1e-30))


def assert_as_accurate(
    function: Callable[[torch.Tensor], torch.Tensor],
    truth: Callable[[torch.Tensor], torch.Tensor],
    plain: Callable[[torch.Tensor], torch.Tensor],
    z: torch.Tensor,
) -> None:
    """Value and gradient against float64, within twice the error of `plain`."""
    found, exact, eager = (
        value_and_grad(function, z),
        value_and_grad(truth, z.cpu().double()),
        value_and_grad(plain, z),
    )
    allowed = 2 * (eager[0] - exact[0]).norm() + VALUE_NEAR * (1 + exact[0].norm())
    assert (found[0] - exact[0]).norm() <= allowed
    assert (
        relative_error(found[1], exact[1]) <= 2 * relative_error(eager[1], exact[1]) + NEAR[z.dtype]
    )
