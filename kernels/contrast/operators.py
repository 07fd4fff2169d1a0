"""Custom operators of the losses: autograd, torch.compile and autocast."""

from __future__ import annotations

from typing import Any

import torch

from patchmill.kernels.common.dispatch import backend
from patchmill.kernels.contrast.pairing import QUEUE, Pairing

FORWARD = """(Tensor queries, Tensor? batch_keys, Tensor? queue, float temperature, str kind,
int views, int total, int offset, bool with_grad) -> (Tensor, Tensor, Tensor)"""
BACKWARD_KEYS = """(Tensor grad_loss, Tensor queries, Tensor? keys, Tensor lse, float temperature,
str kind, int views, int total, int offset, bool are_batch_keys) -> Tensor"""


@torch.library.custom_op("patchmill::contrast", mutates_args=(), schema=FORWARD)
def forward(
    queries: torch.Tensor,
    batch_keys: torch.Tensor | None,
    queue: torch.Tensor | None,
    temperature: float,
    kind: str,
    views: int,
    total: int,
    offset: int,
    with_grad: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss [], log-sum-exp [N], gradient w.r.t. the queries [N, d] or, unless `with_grad`, [0, d].

    Queries, batch keys and queue are rows, [., d]. Without `batch_keys` the queries are their own
    batch keys: on a CPU `with_grad` then gives the gradient in both roles; on a GPU use
    `backward_keys`.
    """
    pairing = Pairing(kind, views, len(queries) // views, total, offset)
    queries = queries.contiguous()
    keys = queries if batch_keys is None else batch_keys.contiguous()
    queue = None if queue is None else queue.contiguous()
    implementation = backend(__package__, queries)
    with torch.autocast(queries.device.type, enabled=False):
        results = implementation.forward(queries, keys, queue, temperature, pairing, with_grad)
    return results  # type: ignore[no-any-return]


@forward.register_fake
def _(queries: torch.Tensor, *others: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, d = queries.shape
    return (
        queries.new_empty((), dtype=torch.float32),
        queries.new_empty(rows, dtype=torch.float32),
        queries.new_empty(rows if others[-1] else 0, d, dtype=torch.float32),
    )


@torch.library.custom_op("patchmill::contrast_backward_keys", mutates_args=(), schema=BACKWARD_KEYS)
def backward_keys(
    grad_loss: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor | None,
    lse: torch.Tensor,
    temperature: float,
    kind: str,
    views: int,
    total: int,
    offset: int,
    are_batch_keys: bool,
) -> torch.Tensor:
    """Gradient w.r.t. the keys, which are the batch keys or the queue; see `cpu.backward_keys`."""
    pairing = Pairing(kind, views, len(queries) // views, total, offset)
    queries = queries.contiguous()
    keys = None if keys is None else keys.contiguous()
    implementation = backend(__package__, queries)
    with torch.autocast(queries.device.type, enabled=False):
        grad = implementation.backward_keys(
            grad_loss, queries, keys, lse, temperature, pairing, are_batch_keys
        )
    return grad  # type: ignore[no-any-return]


@backward_keys.register_fake
def _(
    grad_loss: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor | None, *_: Any
) -> torch.Tensor:
    like = queries if keys is None else keys
    return torch.empty(like.shape, dtype=like.dtype, device=like.device)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    queries, batch_keys, queue, *ctx.settings, _ = inputs
    _, lse, grad_queries = output
    ctx.save_for_backward(queries, batch_keys, queue, lse, grad_queries)
    ctx.mark_non_differentiable(lse, grad_queries)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_loss: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    needs_grad, no_grads = ctx.needs_input_grad[:3], [None] * 6
    if grad_loss is None:
        return None, None, None, *no_grads
    queries, batch_keys, queue, lse, grad_queries = ctx.saved_tensors

    def keys_grad(keys: torch.Tensor | None, are_batch_keys: bool) -> torch.Tensor:
        grad = backward_keys(grad_loss, queries, keys, lse, *ctx.settings, are_batch_keys)
        return grad  # type: ignore[no-any-return]

    queries_grad = batch_keys_grad = queue_grad = None
    if needs_grad[0]:
        if len(grad_queries):  # computed in the forward pass
            queries_grad = (grad_queries * grad_loss).to(queries.dtype)
        else:
            queries_grad = keys_grad(None, True)
    if needs_grad[1]:
        temperature, kind, *_ = ctx.settings
        if kind == QUEUE:
            batch_keys_grad = _grad_positives(grad_loss, queries, batch_keys, lse, temperature)
        else:
            batch_keys_grad = keys_grad(batch_keys, True)
    if needs_grad[2]:
        queue_grad = keys_grad(queue, False)
    return queries_grad, batch_keys_grad, queue_grad, *no_grads


def _grad_positives(
    grad_loss: torch.Tensor,
    queries: torch.Tensor,
    positives: torch.Tensor,
    lse: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Gradient w.r.t. positives that are in the softmax of their own query only (QUEUE)."""
    rows = queries.float()
    probability = ((rows * positives.float()).sum(1) / temperature - lse).exp()
    factor = (probability - 1) * (grad_loss / (len(rows) * temperature))
    return (factor[:, None] * rows).to(positives.dtype)


forward.register_autograd(_backward, setup_context=_setup_context)
