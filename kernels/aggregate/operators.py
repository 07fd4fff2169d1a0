"""Custom operators of aggregation: autograd, torch.compile and autocast."""

from __future__ import annotations

from typing import Any

import torch

from patchmill.kernels.aggregate.reference import EPS
from patchmill.kernels.common.dispatch import backend


@torch.library.custom_op("patchmill::aggregate_mean", mutates_args=())
def mean(
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    unit_rows: bool,
    unit_mean: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means [B, d], sums of weights [B], and lengths of the means [B] before `unit_mean`."""
    results = backend(__package__, embeddings).mean(
        embeddings.contiguous(), weights, offsets, order, unit_rows, unit_mean
    )
    return results  # type: ignore[no-any-return]


@mean.register_fake
def _(
    embeddings: torch.Tensor, weights: Any, offsets: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    segments, dtype = len(offsets) - 1, torch.float32
    means = embeddings.new_empty((segments, embeddings.shape[1]), dtype=dtype)
    return means, means.new_empty(segments), means.new_empty(segments)


@torch.library.custom_op("patchmill::aggregate_mean_backward", mutates_args=())
def mean_backward(
    grad_sums: torch.Tensor,
    grad_dot_mean: torch.Tensor,
    embeddings: torch.Tensor,
    weights: torch.Tensor | None,
    offsets: torch.Tensor,
    order: torch.Tensor | None,
    rows: int,
    unit_rows: bool,
    need_rows: bool,
    need_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients w.r.t. `rows` embeddings and their weights; see `cpu.mean_backward`.

    Embeddings are read only for `unit_rows` and `need_weights`; otherwise they may be empty.
    """
    grads = backend(__package__, grad_sums).mean_backward(
        grad_sums.contiguous(), grad_dot_mean.contiguous(), embeddings.contiguous(),
        weights, offsets, order, rows, unit_rows, need_rows, need_weights,
    )  # fmt: skip
    return grads  # type: ignore[no-any-return]


@mean_backward.register_fake
def _(
    grad_sums: torch.Tensor,
    grad_dot_mean: torch.Tensor,
    embeddings: torch.Tensor,
    weights: Any,
    offsets: Any,
    order: Any,
    rows: int,
    unit_rows: bool,
    need_rows: bool,
    need_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    grad_rows = embeddings.new_empty((rows if need_rows else 0, grad_sums.shape[1]))
    return grad_rows, grad_dot_mean.new_empty(rows if need_weights else 0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    embeddings, weights, offsets, order, ctx.unit_rows, ctx.unit_mean = inputs
    means, totals, lengths = output
    ctx.rows = len(embeddings)
    if not (ctx.unit_rows or ctx.needs_input_grad[1]):
        embeddings = embeddings[:0]  # only the dtype is needed
    ctx.save_for_backward(embeddings, weights, offsets, order, means, totals, lengths)
    ctx.mark_non_differentiable(totals, lengths)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_means: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    need_rows, need_weights = ctx.needs_input_grad[:2]
    if grad_means is None:
        return None, None, None, None, None, None
    embeddings, weights, offsets, order, means, totals, lengths = ctx.saved_tensors
    grad_sums, factors = grad_means.float(), torch.where(totals == 0, 0, 1 / totals)
    if ctx.unit_mean:  # tangential part only; a mean of length up to EPS gets no gradient
        grad_sums = grad_sums - means * (means * grad_sums).sum(1, keepdim=True)
        factors = torch.where(lengths <= EPS, 0, factors / lengths)
    grad_sums, grad_dot_mean = grad_sums * factors[:, None], torch.zeros_like(totals)
    if need_weights and not ctx.unit_mean:
        grad_dot_mean = (grad_sums * means).sum(1)
    grad_rows, grad_weights = mean_backward(
        grad_sums, grad_dot_mean, embeddings, weights, offsets, order,
        ctx.rows, ctx.unit_rows, need_rows, need_weights,
    )  # fmt: skip
    grads = grad_rows if need_rows else None, grad_weights if need_weights else None
    return *grads, None, None, None, None


mean.register_autograd(_backward, setup_context=_setup_context)
