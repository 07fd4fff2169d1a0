"""Batched matrix products in full float32 precision, even if the program allows lower precision.

`torch.set_float32_matmul_precision("high")` lets a GPU round the operands to TF32's 11 bits, and
"medium" lets some CPUs round them to bfloat16's 8. That is meant for a network's layers. It can
cost I + c Z Z^T its positive definiteness, and then its log-determinant is NaN.
"""

from __future__ import annotations

import torch

DROPPED_BITS = 13  # of a float32's mantissa in TF32


def bmm_float32(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """a @ b of float32 [n, ., k] and [n, k, .].

    Rounding cannot be switched off here without switching it off for other threads too. So if it
    is allowed, a GPU splits each operand into two TF32 numbers, whose products are exact; the
    product of the small halves, up to 2^-22 of the result, is dropped. A CPU uses float64.
    """
    if not _may_round(a.device):
        return torch.bmm(a, b, out=out)
    if a.is_cuda:
        (a_high, a_low), (b_high, b_low) = split_tf32(a), split_tf32(b)
        result = torch.bmm(a_high, b_low, out=out)
        return result.baddbmm_(a_low, b_high).baddbmm_(a_high, b_high)
    exact = torch.bmm(a.double(), b.double())
    return exact.float() if out is None else out.copy_(exact)


def split_tf32(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split float32 numbers into their value rounded to TF32 and the remainder."""
    half = 1 << DROPPED_BITS - 1
    high = ((a.view(torch.int32) + half) & -(1 << DROPPED_BITS)).view(torch.float32)
    return high, a - high


def _may_round(device: torch.device) -> bool:
    settings = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    precision = getattr(getattr(settings, "matmul", None), "fp32_precision", None)
    if precision is None:  # before torch 2.9
        return torch.get_float32_matmul_precision() != "highest"
    return precision in ("tf32", "bf16")
