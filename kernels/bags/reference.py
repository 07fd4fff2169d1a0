"""The definitions, in plain torch, for any type of number and for autograd."""

from __future__ import annotations

import torch

EPS = 1e-8  # the shortest length that a cosine divides by, as in torch's cosine_similarity


def bag_loss(z: torch.Tensor) -> torch.Tensor:
    """Minus the mean cosine of a patch's embedding and its bag's mean, of z [V, B, d].

    Row z_ib is patch i of image b; the rows of an image are a bag. With the mean of a bag
    zbar_b = (1/V) sum_i z_ib, through which gradients flow, the loss is

        -(1/(V B)) sum_ib unit(z_ib) . unit(zbar_b),    unit(x) = x / max(|x|, EPS).

    Gradients are those of this formula, also where a row or a mean is shorter than EPS:
    there unit(x) = x / EPS.
    """
    return -(unit(z) * unit(z.mean(0))).sum(-1).mean()


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=EPS)


def coding_rate(z: torch.Tensor, eps: float) -> torch.Tensor:
    """How many nats B images take to be coded up to eps: [V], of the rows of each z_i, [B, d].

    R_i = 1/2 logdet(I_d + d/(B eps) z_i^T z_i). Rows of one matrix are of different images.
    """
    images, d = z.shape[-2:]
    gram = z.mT @ z * (d / (images * eps))
    matrix = torch.eye(d, dtype=z.dtype, device=z.device) + gram
    return logdet(matrix) / 2


def logdet(matrix: torch.Tensor) -> torch.Tensor:
    """Of symmetric positive definite matrices; NaN where they are not.

    torch.logdet would take their LU factors: with two threads of oneMKL, batches of matrices
    from 300 x 300 did not return (torch 2.15).
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    found = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.where(failed == 0, found, torch.nan)
