"""Coding rates through the smaller of the two Gram matrices, on any device.

det(I_d + c Z^T Z) = det(I_B + c Z Z^T), with c = d / (B eps) and Z of shape [B, d]. So the matrix
that is factorised is B x B where B <= d, else d x d. The gradient of 1/2 logdet is

    c (I_B + c Z Z^T)^-1 Z  =  c Z (I_d + c Z^T Z)^-1,

of which the smaller inverse is made from the Cholesky factor that the rate was read off. To make
the inverse and multiply by it takes a quarter of the time of solving for all columns of Z (20 x 100
x 1024 on one core), and is as near to the truth: the matrix has no eigenvalue below 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from patchmill.kernels.bags.products import product

AT_ONCE = 1 << 22  # numbers of z in float32, where they are not that already


def forward(z: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The rates [V] of z, [V, B, d], and the Cholesky factors; both NaN where there is no rate."""
    views, images, d = z.shape
    least = min(images, d)
    with torch.autocast(z.device.type, enabled=False):
        gram = torch.empty(views, least, least, dtype=torch.float32, device=z.device)
        for part in _parts(z):
            rows = z[part].float() if images <= d else z[part].float().mT
            product(rows, rows.mT, out=gram[part])
        gram.mul_(d / (images * eps)).diagonal(dim1=1, dim2=2).add_(1)
        upper, failed = torch.linalg.cholesky_ex(gram, upper=True)
    factors = upper.mT.contiguous()  # LAPACK leaves columns: nothing is copied
    diagonal = factors.diagonal(dim1=1, dim2=2)
    wrong = (failed != 0) | ~diagonal.isfinite().all(1)
    factors.masked_fill_(wrong[:, None, None], torch.nan)
    return diagonal.log().sum(1), factors


def backward(
    gradient: torch.Tensor, z: torch.Tensor, factors: torch.Tensor, eps: float
) -> torch.Tensor:
    """The gradient by z, in its type, of rates with gradients [V]."""
    _, images, d = z.shape
    out = torch.empty_like(z)
    with torch.autocast(z.device.type, enabled=False):
        weights = torch.cholesky_inverse(factors.mT, upper=True)
        weights.mul_((gradient * (d / (images * eps)))[:, None, None])
        for part in _parts(z):
            rows, room = z[part].float(), out[part] if out.dtype == torch.float32 else None
            pair = (weights[part], rows) if images <= d else (rows, weights[part])
            made = product(*pair, out=room)
            if room is None:
                out[part] = made
    return out


def _parts(z: torch.Tensor) -> Iterator[slice]:
    views, images, d = z.shape
    step = max(1, AT_ONCE // (images * d))
    for first in range(0, views, step):
        yield slice(first, first + step)
