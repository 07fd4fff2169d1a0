"""Bag loss (EMP-SSL's invariance term) and coding rate (its anti-collapse term).

A bag is the patch embeddings of one image. Inputs are float32, float16 or bfloat16; products and
sums are accumulated in float32, even under autocast, and results are float32. float64 runs the
reference.
"""

from __future__ import annotations

import math

import torch

from patchmill.kernels.bags import operators, reference

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MAX_GPU_D = 16384  # elements of a row that the GPU kernels hold in registers


def bag_loss(z: torch.Tensor) -> torch.Tensor:
    """EMP-SSL's invariance loss: the negative mean cosine of z_ib and its bag's mean.

    z is [V, B, d], patch i of image b; its rows need not be normalised. The loss is a float32
    scalar. Gradients flow through the mean. A row or mean shorter than 1e-8 is divided by 1e-8, as
    in torch's cosine_similarity, and gradients are those of that formula: for a row of zeros they
    are finite, but as large as 1e8 / (V B), which overflows float16. NaN and infinities make the
    loss NaN, and the gradients of their bags. Extra memory: 8 d bytes per bag on a GPU, and per
    split of a bag if bags are few; a few megabytes on a CPU.
    """
    _check("bag_loss", z, (3,))
    if z.dtype == torch.float64:
        return reference.bag_loss(z)
    if z.is_cuda and z.shape[2] > MAX_GPU_D:
        return reference.bag_loss(z.float())
    z = z if z.stride(2) == 1 else z.contiguous()
    save = torch.is_grad_enabled() and z.requires_grad
    return operators.bag_loss(z, save)[0]  # type: ignore[no-any-return]


def coding_rate(z: torch.Tensor, eps: float = 0.2) -> torch.Tensor:
    """Coding rate R_i = 1/2 logdet(I + d/(B eps) z_i^T z_i) of z, [V, B, d]: [V] float32.

    A scalar if z is [B, d]. The rows of one matrix are one patch of each image of the batch: two
    rows of the same image would be driven apart. The determinant is that of the B x B Gram matrix
    if B <= d, else of the d x d one; the V Cholesky factors are saved for backward.

    With unit rows the matrix has eigenvalues from 1 to 1 + d / eps (5121 for d = 1024, eps = 0.2),
    and float32 suffices. Relative errors against float64, the worst of [B, d] = [100, 1024], [1024,
    128], [512, 512] and [256, 2048]:

        unit rows               rate    gradient (its norm)
        random                  1e-7    2e-6
        0.01 d^(1/2) apart      3e-5    2e-4
        identical               5e-5    2e-2, since nearly all of the gradient cancels

    That is as accurate as autograd with the same matrix and, with B < d, up to 60 times as accurate
    as with the d x d one. Rows may have any length, but if c times the largest eigenvalue of the
    Gram matrix (c = d / (B eps)) is above 1e7, the factorisation can fail. Then, and for NaN or
    infinities in z_i, R_i and its gradient are NaN, and nothing raises. Products keep float32
    precision even if the program allows TF32 or bfloat16: see float32_matmul.py.
    """
    _check("coding_rate", z, (2, 3))
    if not 0 < eps < math.inf:
        raise ValueError(f"coding_rate's eps must be above 0 and finite, not {eps}: 0.2 is usual")
    if z.dtype == torch.float64:
        return reference.coding_rate(z, eps)
    rates = operators.coding_rate(z if z.ndim == 3 else z[None], float(eps))[0]
    return rates if z.ndim == 3 else rates[0]  # type: ignore[no-any-return]


def _check(function: str, z: torch.Tensor, ranks: tuple[int, ...]) -> None:
    if z.ndim not in ranks or 0 in z.shape:
        shapes = " or ".join({2: "[B, d]", 3: "[V, B, d]"}[rank] for rank in ranks)
        raise ValueError(
            f"{function} takes z as {shapes} without an empty dimension, not {tuple(z.shape)}: "
            "stack the views of a batch along dimension 0"
        )
    if z.dtype not in DTYPES:
        raise ValueError(
            f"{function} takes float32, float16, bfloat16 or float64, not {z.dtype}: convert z"
        )
