"""EMP-SSL's two loss terms, against its released code."""

from __future__ import annotations

import torch
from torch.nn.functional import cosine_similarity, normalize

from patchmill.benchmarks.operations.case import Case, Floor, Run, noise, trio, with_backward
from patchmill.kernels import bags

EPS = 0.2


def cases(device: torch.device, dtype: torch.dtype) -> list[Case]:
    big = device.type == "cuda"
    return [
        _bag_loss(200 if big else 20, 256 if big else 100, 1024, device, dtype),
        _coding_rate(20, 100, 1024, device),
    ]


def contractive(z: torch.Tensor) -> torch.Tensor:
    return -cosine_similarity(z, z.mean(0, keepdim=True).expand_as(z), dim=-1).mean()


def released_rate(z: torch.Tensor) -> torch.Tensor:
    """tsb0601/EMP-SSL, loss.py: log-determinant of the d x d matrix."""
    images, d = z.shape[-2:]
    matrix = torch.eye(d, device=z.device) + d / (images * EPS) * z.mT @ z
    return _logdet(matrix).mean() / 2


def smaller_rate(z: torch.Tensor) -> torch.Tensor:
    """Log-determinant of the B x B matrix."""
    images, d = z.shape[-2:]
    matrix = torch.eye(images, device=z.device) + d / (images * EPS) * z @ z.mT
    return _logdet(matrix).mean() / 2


def _logdet(matrices: torch.Tensor) -> torch.Tensor:
    """Replaces the released code's torch.logdet, whose LU in MKL hangs with two threads."""
    return 2 * torch.linalg.cholesky(matrices).diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _bag_loss(views: int, images: int, d: int, device: torch.device, dtype: torch.dtype) -> Case:
    z = noise(views, images, d, device=device, dtype=dtype).requires_grad_()
    floor = Floor(3 * z.numel() * z.element_size())  # two reads, gradients written
    runs = trio(bags.bag_loss, contractive, z, wanted=[z])
    return Case("bag_loss", f"V {views}, B {images}, d {d}", runs, floor)


def _coding_rate(views: int, images: int, d: int, device: torch.device) -> Case:
    z = noise(views, images, d, device=device, dtype=torch.float32)
    z = normalize(z, dim=-1).requires_grad_()

    def ours(z: torch.Tensor) -> torch.Tensor:
        return bags.coding_rate(z, EPS).mean()

    runs: dict[str, Run] = trio(ours, released_rate, z, wanted=[z])
    runs["eager, B x B"] = with_backward(smaller_rate, z, wanted=[z])
    products = views * (2 * 2 * images**2 * d + images**3 / 3)  # Gram, inverse times Z, Cholesky
    floor = Floor(3 * z.numel() * z.element_size(), products)
    return Case("coding_rate", f"V {views}, B {images}, d {d}", runs, floor)
