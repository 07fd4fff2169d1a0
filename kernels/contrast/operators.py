"""The operators behind the losses: how autograd, torch.compile and autocast see them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from patchmill.kernels.contrast import cpu
from patchmill.kernels.contrast.pairing import QUEUE, Pairing

FORWARD = """(Tensor queries, Tensor? companions, Tensor? queue, float temperature, str kind,
int views, int total, int offset, bool gradient) -> (Tensor, Tensor, Tensor)"""
PULLED = """(Tensor gradient, Tensor queries, Tensor? keys, Tensor lse, float temperature, str kind,
int views, int total, int offset, bool companions) -> Tensor"""


@torch.library.custom_op("patchmill::contrast", mutates_args=(), schema=FORWARD)
def forward(
    queries: torch.Tensor,
    companions: torch.Tensor | None,
    queue: torch.Tensor | None,
    temperature: float,
    kind: str,
    views: int,
    total: int,
    offset: int,
    gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss [], log-denominators [N], gradient by the queries [N, d] or, unless asked for, [0, d].

    Queries, companions and queue are of rows, [., d]. Without `companions` the queries are their
    own: the gradient in both roles may be asked for on a CPU, and is made by `pulled` elsewhere.
    """
    pairing = Pairing(kind, views, len(queries) // views, total, offset)
    queries = queries.contiguous()
    keys = queries if companions is None else companions.contiguous()
    queue = None if queue is None else queue.contiguous()
    with torch.autocast(queries.device.type, enabled=False):
        made = _on(queries).forward(queries, keys, queue, temperature, pairing, gradient)
    return made  # type: ignore[no-any-return]


@forward.register_fake
def _(queries: torch.Tensor, *others: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, d = queries.shape
    return (
        queries.new_empty((), dtype=torch.float32),
        queries.new_empty(rows, dtype=torch.float32),
        queries.new_empty(rows if others[-1] else 0, d, dtype=torch.float32),
    )


@torch.library.custom_op("patchmill::contrast_pulled", mutates_args=(), schema=PULLED)
def pulled(
    gradient: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor | None,
    lse: torch.Tensor,
    temperature: float,
    kind: str,
    views: int,
    total: int,
    offset: int,
    companions: bool,
) -> torch.Tensor:
    """The gradient by keys, which are the companions or the queue; see `cpu.pulled`."""
    pairing = Pairing(kind, views, len(queries) // views, total, offset)
    queries = queries.contiguous()
    keys = None if keys is None else keys.contiguous()
    with torch.autocast(queries.device.type, enabled=False):
        made = _on(queries).pulled(gradient, queries, keys, lse, temperature, pairing, companions)
    return made  # type: ignore[no-any-return]


@pulled.register_fake
def _(
    gradient: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor | None, *_: Any
) -> torch.Tensor:
    like = queries if keys is None else keys
    return torch.empty(like.shape, dtype=like.dtype, device=like.device)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    queries, companions, queue, *ctx.settings, _ = inputs
    _, lse, slope = output
    ctx.save_for_backward(queries, companions, queue, lse, slope)
    ctx.mark_non_differentiable(lse, slope)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradient: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    wanted, unasked = ctx.needs_input_grad[:3], [None] * 6
    if gradient is None:
        return None, None, None, *unasked
    queries, companions, queue, lse, slope = ctx.saved_tensors

    def pull(keys: torch.Tensor | None, are_companions: bool) -> torch.Tensor:
        made = pulled(gradient, queries, keys, lse, *ctx.settings, are_companions)
        return made  # type: ignore[no-any-return]

    by_queries = by_companions = by_queue = None
    if wanted[0]:
        by_queries = _slid(slope, gradient, queries) if len(slope) else pull(None, True)
    if wanted[1]:
        if ctx.settings[1] == QUEUE:
            by_companions = _own(gradient, queries, companions, lse, ctx.settings[0])
        else:
            by_companions = pull(companions, True)
    if wanted[2]:
        by_queue = pull(queue, False)
    return by_queries, by_companions, by_queue, *unasked


def _slid(slope: torch.Tensor, gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return (slope * gradient).to(like.dtype)


def _own(
    gradient: torch.Tensor,
    queries: torch.Tensor,
    positives: torch.Tensor,
    lse: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """The gradient by positives that are in the denominator of their own query alone."""
    rows = queries.float()
    chance = ((rows * positives.float()).sum(1) / temperature - lse).exp()
    pull = (chance - 1) * (gradient / (len(rows) * temperature))
    return (pull[:, None] * rows).to(positives.dtype)


forward.register_autograd(_backward, setup_context=_save)


def _on(tensor: torch.Tensor) -> ModuleType:
    if not tensor.is_cuda:
        return cpu
    from patchmill.kernels.contrast import gpu

    return gpu
