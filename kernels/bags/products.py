"""Products of float32 matrices with float32's digits, whatever rounding a program has allowed.

`torch.set_float32_matmul_precision("high")` lets a GPU round what it multiplies to the 11 bits of
TF32, and "medium" lets some CPUs round it to the 8 of bfloat16. That is meant for a network's
layers. Of I + c Z Z^T it can take away that it is positive definite, and then the logarithm of its
determinant is NaN.
"""

from __future__ import annotations

import torch

DROPPED = 13  # bits of a float32 that TF32 does not keep


def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """a @ b of float32 [n, ., k] and [n, k, .].

    The rounding cannot be forbidden here without forbidding it to other threads, too. So where it
    is allowed, on a GPU each factor is split in two that TF32 holds, whose products are exact, and
    the product of the small ones, up to 2^-22 of the whole, is left out. On a CPU float64 serves.
    """
    if not _is_rounded(a.device):
        return torch.bmm(a, b, out=out)
    if a.is_cuda:
        (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
        made = torch.bmm(a_high, b_low, out=out)
        return made.baddbmm_(a_low, b_high).baddbmm_(a_high, b_high)
    exact = torch.bmm(a.double(), b.double())
    return exact.float() if out is None else out.copy_(exact)


def halves(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 numbers as sums of two: the nearest of 11 bits, and what that leaves."""
    half = 1 << DROPPED - 1
    high = ((a.view(torch.int32) + half) & -(1 << DROPPED)).view(torch.float32)
    return high, a - high


def _is_rounded(device: torch.device) -> bool:
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    allowed = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if allowed is None:  # before torch 2.9
        return torch.get_float32_matmul_precision() != "highest"
    return allowed in ("tf32", "bf16")
