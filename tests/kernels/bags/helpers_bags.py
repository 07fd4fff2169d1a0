"""Embeddings for the tests of bags, and how far from the truth they may lead."""

from __future__ import annotations

from collections.abc import Callable

import torch

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, *HALVES)

# Twice the distance of plain PyTorch in the same type, plus this. Gradients are measured as a
# whole, by their norms; one in half precision also cannot be nearer than its own rounding.
NEAR = {torch.float32: 3e-7, torch.float16: 3e-4, torch.bfloat16: 2e-3}
VALUE_NEAR = 5e-7  # values are float32 for all types


def make(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Rows of many lengths, each bag about a middle of its own."""
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randn(*shape, generator=draws) + torch.randn(*shape[1:], generator=draws)
    lengths = torch.randn(*shape[:-1], 1, generator=draws).exp()
    return (rows * lengths).to(dtype)


def units(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1).to(dtype)


def pulled(
    face: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values, and the gradient of twice the first and less of the others; in float64."""
    z = z.detach().requires_grad_()
    made = face(z)
    weights = torch.linspace(2, 0.5, made.numel(), dtype=made.dtype, device=made.device)
    (gradient,) = torch.autograd.grad((made * weights.view(made.shape)).sum(), z)
    return made.detach().cpu().double(), gradient.cpu().double()


def off(found: torch.Tensor, truth: torch.Tensor) -> float:
    """The distance, in lengths of the truth."""
    return float((found - truth).norm() / truth.norm().clamp(min=1e-30))


def assert_near_as(
    face: Callable[[torch.Tensor], torch.Tensor],
    truth: Callable[[torch.Tensor], torch.Tensor],
    plain: Callable[[torch.Tensor], torch.Tensor],
    z: torch.Tensor,
) -> None:
    """Value and gradient, held against the truth of the same numbers in float64."""
    found, exact, usual = pulled(face, z), pulled(truth, z.cpu().double()), pulled(plain, z)
    allowed = 2 * (usual[0] - exact[0]).norm() + VALUE_NEAR * (1 + exact[0].norm())
    assert (found[0] - exact[0]).norm() <= allowed
    assert off(found[1], exact[1]) <= 2 * off(usual[1], exact[1]) + NEAR[z.dtype]
