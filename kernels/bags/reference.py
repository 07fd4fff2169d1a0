"""Reference implementation of the bag loss and the coding rate, in plain PyTorch."""

from __future__ import annotations

import torch

EPS = 1e-8  # lower bound of the lengths that a cosine divides by, as in cosine_similarity


def bag_loss(z: torch.Tensor) -> torch.Tensor:
    """Minus the mean cosine of each patch embedding and its bag's mean; z is [V, B, d].

    Row z_ib is patch i of image b; the rows of an image are a bag. With the mean of a bag
    zbar_b = (1/V) sum_i z_ib, through which gradients flow, the loss is

        -(1/(V B)) sum_ib unit(z_ib) . unit(zbar_b),    unit(x) = x / max(|x|, EPS).

    Gradients are those of this formula, also if a row or a mean is shorter than EPS: then
    unit(x) = x / EPS.
    """
    return -(unit(z) * unit(z.mean(0))).sum(-1).mean()


def unit(x: torch.Tensor) -> torch.Tensor:
    """x / max(|x|, EPS)."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=EPS)


def coding_rate(z: torch.Tensor, eps: float) -> torch.Tensor:
    """Nats needed to code the B rows of each z_i, [B, d], up to distortion eps: [V].

    R_i = 1/2 logdet(I_d + d/(B eps) z_i^T z_i). Rows of one matrix come from different images.
    """
    images, d = z.shape[-2:]
    gram = z.mT @ z * (d / (images * eps))
    matrix = torch.eye(d, dtype=z.dtype, device=z.device) + gram
    return logdet(matrix) / 2


def logdet(matrix: torch.Tensor) -> torch.Tensor:
    """Log-determinant of symmetric positive definite matrices; NaN for other matrices.

    torch.logdet factorises by LU, which hangs for batches of matrices of 300 x 300 and up with two
    oneMKL threads (torch 2.15).
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    value = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.where(info == 0, value, torch.nan)
