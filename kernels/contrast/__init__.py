"""Contrastive losses (InfoNCE, NT-Xent) that never materialise the matrix of logits.

The caller should L2-normalise the rows. Inputs are float32, float16 or bfloat16, all of one dtype;
products and sums are accumulated in float32, even under autocast, and the loss is float32. Products
of float32 are not rounded to TF32. Extra memory, besides inputs and results: one value per element
of the rows, and blocks of logits and partial sums of a fixed size. float64 runs the reference, with
all logits in memory.
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
    """MoCo's InfoNCE: cross-entropy of a query's positive against K negatives; float32 scalar.

    queries and positives are [B, d], keys [K, d]. With `in_batch`, the positives of the other rows
    are negatives too. Gradients flow to those of the three that require them.
    """
    _check_info_nce(queries, positives, keys, temperature, in_batch)
    if queries.dtype == torch.float64:
        return reference.info_nce(queries, positives, keys, temperature, in_batch)
    kind, batch = BATCH if in_batch else QUEUE, len(queries)
    with_grad = torch.is_grad_enabled() and queries.requires_grad
    return operators.forward(
        queries, positives, keys, float(temperature), kind, 1, batch, 0, with_grad
    )[0]  # type: ignore[no-any-return]


def nt_xent(
    z: torch.Tensor,
    temperature: float,
    gathered: torch.Tensor | None = None,
    offset: int = 0,
) -> torch.Tensor:
    """SimCLR's NT-Xent over V views: z is [V, B, d], the loss a float32 scalar.

    The loss is the mean over rows and over the V - 1 positives of each row, the other views of its
    image; the softmax of a row runs over all other rows. In distributed training `gathered` is z of
    all processes, [V, total, d], and image b of z is its image `offset` + b. Gradients flow to
    both, so use a differentiable all-gather.
    """
    _check_nt_xent(z, temperature, gathered, offset)
    if z.dtype == torch.float64:
        return reference.nt_xent(z, temperature, gathered, offset)
    views, local, d = z.shape
    queries = z.reshape(-1, d)
    batch_keys = None if gathered is None else gathered.reshape(-1, d)
    total = local if gathered is None else gathered.shape[1]
    fused = batch_keys is not None or not z.is_cuda  # the gradient comes with the forward pass
    with_grad = torch.is_grad_enabled() and z.requires_grad and fused
    return operators.forward(
        queries, batch_keys, None, float(temperature), VIEWS, views, total, offset, with_grad
    )[0]  # type: ignore[no-any-return]


def _check_info_nce(
    queries: torch.Tensor,
    positives: torch.Tensor,
    keys: torch.Tensor,
    temperature: float,
    in_batch: bool,
) -> None:
    shapes = [tuple(tensor.shape) for tensor in (queries, positives, keys)]
    if queries.ndim != 2 or 0 in queries.shape or positives.shape != queries.shape:
        raise ValueError(
            f"info_nce takes queries and positives of one shape [B, d], not {shapes[0]} and "
            f"{shapes[1]}: pass one positive for each query"
        )
    if keys.ndim != 2 or keys.shape[1] != queries.shape[1]:
        raise ValueError(
            f"info_nce takes keys as rows [K, {shapes[0][1]}], not {shapes[2]}: transpose a queue "
            "stored as columns"
        )
    if not len(keys) and not in_batch:
        raise ValueError("info_nce has no negatives: pass keys, or set in_batch")
    _check_dtypes("info_nce", queries, positives, keys)
    _check_temperature("info_nce", temperature)


def _check_nt_xent(
    z: torch.Tensor, temperature: float, gathered: torch.Tensor | None, offset: int
) -> None:
    if z.ndim != 3 or 0 in z.shape or z.shape[0] < 2:
        raise ValueError(
            f"nt_xent takes z as [V, B, d] with two views or more, not {tuple(z.shape)}: stack the "
            "views of a batch along dimension 0"
        )
    if gathered is not None:
        if gathered.ndim != 3 or gathered.shape[::2] != z.shape[::2]:
            raise ValueError(
                f"nt_xent takes gathered as [{z.shape[0]}, total, {z.shape[2]}] with z of shape "
                f"{tuple(z.shape)}, not {tuple(gathered.shape)}: gather along dimension 1"
            )
        _check_dtypes("nt_xent", z, gathered)
    total = z.shape[1] if gathered is None else gathered.shape[1]
    if not 0 <= offset <= total - z.shape[1]:
        raise ValueError(
            f"nt_xent's images {offset} to {offset + z.shape[1] - 1} are not all among the {total} "
            "gathered ones: pass the global index of this process's first image as offset"
        )
    _check_dtypes("nt_xent", z)
    _check_temperature("nt_xent", temperature)


def _check_dtypes(function: str, *tensors: torch.Tensor) -> None:
    kinds = {(tensor.dtype, tensor.device) for tensor in tensors}
    if len(kinds) > 1:
        listed = " and ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(
            f"{function} takes tensors of one type on one device, not {listed}: convert one"
        )
    if tensors[0].dtype not in DTYPES:
        raise ValueError(
            f"{function} takes float32, float16, bfloat16 or float64, not {tensors[0].dtype}: "
            "convert the inputs"
        )


def _check_temperature(function: str, temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"{function}'s temperature must be above 0 and finite, not {temperature}")
