"""Contrast of queries against many keys, without the matrix of logits.

Rows are meant to be L2-normalised: the caller does that. Numbers are float32, float16 or bfloat16,
one type for all; products and sums are of float32, whatever the autocast, and so is the loss.
Products of float32 are not rounded to TF32. Memory beside what is given and asked for: for the
numbers of the rows, and for blocks of logits and of sums of a fixed size. float64 goes through the
reference, with all logits in memory.
"""

from __future__ import annotations

import math

import torch

from patchmill.kernels.contrast import operators, reference
from patchmill.kernels.contrast.pairing import BATCH, QUEUE, VIEWS

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def info_nce(
    queries: torch.Tensor,
    positives: torch.Tensor,
    keys: torch.Tensor,
    temperature: float,
    in_batch: bool = False,
) -> torch.Tensor:
    """MoCo's loss: each of B queries finds its positive among that and K keys; a float32 scalar.

    queries and positives are [B, d], keys [K, d]. With `in_batch` the other rows' positives are
    keys too. Gradients go to whichever of the three want them.
    """
    _check_info_nce(queries, positives, keys, temperature, in_batch)
    if queries.dtype == torch.float64:
        return reference.info_nce(queries, positives, keys, temperature, in_batch)
    kind, rows = BATCH if in_batch else QUEUE, len(queries)
    wanted = torch.is_grad_enabled() and queries.requires_grad
    return operators.forward(
        queries, positives, keys, float(temperature), kind, 1, rows, 0, wanted
    )[0]  # type: ignore[no-any-return]


def nt_xent(
    z: torch.Tensor,
    temperature: float,
    gathered: torch.Tensor | None = None,
    offset: int = 0,
) -> torch.Tensor:
    """SimCLR's loss: every row of z, [V, B, d], finds the other views of its image; float32 scalar.

    The mean over rows and over their V - 1 positives; every row but itself is in a row's
    denominator. Where each process has some of the images, `gathered` is all of them, [V, total,
    d], image b of z is its image `offset` + b, and gradients go to both: gather so that they pass.
    """
    _check_nt_xent(z, temperature, gathered, offset)
    if z.dtype == torch.float64:
        return reference.nt_xent(z, temperature, gathered, offset)
    views, local, d = z.shape
    rows = z.reshape(-1, d)
    every = None if gathered is None else gathered.reshape(-1, d)
    total = local if gathered is None else gathered.shape[1]
    wanted = torch.is_grad_enabled() and z.requires_grad and (every is not None or not z.is_cuda)
    return operators.forward(
        rows, every, None, float(temperature), VIEWS, views, total, offset, wanted
    )[0]  # type: ignore[no-any-return]


def _check_info_nce(
    queries: torch.Tensor,
    positives: torch.Tensor,
    keys: torch.Tensor,
    temperature: float,
    in_batch: bool,
) -> None:
    shapes = [tuple(it.shape) for it in (queries, positives, keys)]
    if queries.ndim != 2 or 0 in queries.shape or positives.shape != queries.shape:
        raise ValueError(
            f"info_nce takes queries and positives of one shape [B, d], not {shapes[0]} and "
            f"{shapes[1]}: give each query its positive"
        )
    if keys.ndim != 2 or keys.shape[1] != queries.shape[1]:
        raise ValueError(
            f"info_nce takes keys as rows [K, {shapes[0][1]}], not {shapes[2]}: transpose a queue "
            "that is kept by columns"
        )
    if not len(keys) and not in_batch:
        raise ValueError("info_nce has nothing to tell the positives from: give keys, or in_batch")
    _check_alike("info_nce", queries, positives, keys)
    _check_temperature("info_nce", temperature)


def _check_nt_xent(
    z: torch.Tensor, temperature: float, gathered: torch.Tensor | None, offset: int
) -> None:
    if z.ndim != 3 or 0 in z.shape or z.shape[0] < 2:
        raise ValueError(
            f"nt_xent takes z as [V, B, d] with two views or more, not {tuple(z.shape)}: stack the "
            "views of a batch in front"
        )
    if gathered is not None:
        if gathered.ndim != 3 or gathered.shape[::2] != z.shape[::2]:
            raise ValueError(
                f"nt_xent takes gathered as [{z.shape[0]}, total, {z.shape[2]}] beside z of "
                f"{tuple(z.shape)}, not {tuple(gathered.shape)}: gather along the images"
            )
        _check_alike("nt_xent", z, gathered)
    total = z.shape[1] if gathered is None else gathered.shape[1]
    if not 0 <= offset <= total - z.shape[1]:
        raise ValueError(
            f"nt_xent's {z.shape[1]} images from number {offset} are not all among the {total} "
            "that there are: give the number of the first one as offset"
        )
    _check_alike("nt_xent", z)
    _check_temperature("nt_xent", temperature)


def _check_alike(face: str, *tensors: torch.Tensor) -> None:
    kinds = {(it.dtype, it.device) for it in tensors}
    if len(kinds) > 1:
        told = " and ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(f"{face} takes tensors of one type on one device, not {told}: convert one")
    if tensors[0].dtype not in DTYPES:
        raise ValueError(
            f"{face} takes float32, float16, bfloat16 or float64, not {tensors[0].dtype}: convert"
        )


def _check_temperature(face: str, temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"{face}'s temperature must be above 0 and finite, not {temperature}")
