"""MoCo's and SimCLR's losses, against implementations that store all logits."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, normalize

from patchmill.benchmarks.operations.case import Case, Floor, noise, trio
from patchmill.kernels import contrast

TEMPERATURE = 0.2


def cases(device: torch.device, dtype: torch.dtype) -> list[Case]:
    big = device.type == "cuda"
    return [
        _info_nce(4096 if big else 512, 65536, 128, device, dtype),
        _info_nce(256 if big else 64, 65536, 128, device, dtype),
        _nt_xent(2, 4096 if big else 512, 128, device, dtype),
        _nt_xent(2, 64, 128, device, dtype),
    ]


def moco(q: torch.Tensor, k: torch.Tensor, queue: torch.Tensor) -> torch.Tensor:
    """facebookresearch/moco, moco/builder.py and main_moco.py."""
    positive = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
    negative = torch.einsum("nc,kc->nk", [q, queue])
    logits = torch.cat([positive, negative], dim=1) / TEMPERATURE
    return cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def simclr(z: torch.Tensor) -> torch.Tensor:
    """The usual NT-Xent: all logits, the diagonal masked, cross-entropy."""
    views, images, _ = z.shape
    rows = z.flatten(0, 1)
    logits = rows @ rows.T / TEMPERATURE
    itself = torch.eye(len(rows), dtype=torch.bool, device=z.device)
    partners = torch.arange(views * images, device=z.device).roll(images)
    return cross_entropy(logits.masked_fill(itself, -torch.inf), partners)


def _info_nce(count: int, keys: int, d: int, device: torch.device, dtype: torch.dtype) -> Case:
    q, k, queue = (
        normalize(noise(rows, d, device=device, dtype=torch.float32, seed=seed), dim=1).to(dtype)
        for seed, rows in enumerate((count, count, keys))
    )
    q.requires_grad_()

    def ours(q: torch.Tensor, k: torch.Tensor, queue: torch.Tensor) -> torch.Tensor:
        return contrast.info_nce(q, k, queue, TEMPERATURE)

    number = q.element_size()
    floor = Floor(number * d * (keys + 3 * count), 3 * 2 * count * keys * d)
    shape = f"B {count}, K {keys}, d {d}"
    return Case("info_nce", shape, trio(ours, moco, q, k, queue, wanted=[q]), floor)


def _nt_xent(views: int, images: int, d: int, device: torch.device, dtype: torch.dtype) -> Case:
    z = normalize(noise(views, images, d, device=device, dtype=torch.float32), dim=-1).to(dtype)
    z.requires_grad_()

    def ours(z: torch.Tensor) -> torch.Tensor:
        return contrast.nt_xent(z, TEMPERATURE)

    rows = views * images
    floor = Floor(z.element_size() * d * 3 * rows, 3 * 2 * rows * rows * d)
    return Case(
        "nt_xent", f"V {views}, B {images}, d {d}", trio(ours, simclr, z, wanted=[z]), floor
    )
