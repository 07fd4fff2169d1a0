"""The Triton kernels between protected pages, on random shapes, interpreted."""

from __future__ import annotations

from typing import Any
from unittest import mock

import helpers_interpreter
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from helpers_contrast import SCALE, arguments, loss_and_grads
from helpers_guarded_tensors import ENDS, GuardedMemory, random_cases, trouble

from patchmill.kernels.contrast import gpu, reference
from patchmill.kernels.contrast.pairing import BATCH, QUEUE, VIEWS, Pairing

TEMPERATURE = 0.1


def small_blocks(d: int, *_: object) -> gpu.Blocks:
    """Blocks of 16 x 16 logits, so that few rows make many blocks; rows over 32 are split."""
    width = 16 if d <= 16 else 32
    return gpu.Blocks(16, 16, width if d <= width else 16, width, 4, 1)


@st.composite
def pairings(draw: Any) -> tuple[Pairing, int]:
    """A pairing, and the number of keys in a queue."""
    kind, local = draw(st.sampled_from([QUEUE, BATCH, VIEWS])), draw(st.integers(1, 20))
    if kind != VIEWS:
        return Pairing(kind, 1, local, local, 0), draw(st.integers(int(kind == QUEUE), 20))
    others, offset = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    return Pairing(VIEWS, draw(st.integers(2, 3)), local, local + others + offset, offset), 0


def right(pairing: Pairing, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The loss and its gradients w.r.t. queries, batch keys and queue."""

    def info_nce(queries: Any, positives: Any, queue: Any = None) -> torch.Tensor:
        queue = queries[:0] if queue is None else queue
        return reference.info_nce(queries, positives, queue, TEMPERATURE, pairing.kind == BATCH)

    def nt_xent(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        z, gathered = (it.unflatten(0, (pairing.views, -1)) for it in (queries, keys))
        return reference.nt_xent(z, TEMPERATURE, gathered, pairing.offset)

    return loss_and_grads(nt_xent if pairing.kind == VIEWS else info_nce, tensors)


@random_cases(4)
@given(pairings(), st.integers(1, 36))
def losses_and_gradients(pairing_and_keys: tuple[Pairing, int], d: int):
    pairing, keys = pairing_and_keys
    given_tensors = arguments(pairing, d, keys, torch.float32)
    loss, queries_grad, *keys_grads = right(pairing, [it for it in given_tensors if it is not None])
    settings = TEMPERATURE, pairing
    for at_end in ENDS:
        with (
            GuardedMemory(at_end) as memory,
            mock.patch.object(gpu, "blocks", small_blocks),
            mock.patch.object(gpu, "INTERPRETED_MULTIPROCESSORS", 1),
        ):
            queries, batch_keys, queue = memory.given(*given_tensors)
            (scale,) = memory.given(torch.tensor(SCALE))
            found = gpu.forward(queries, batch_keys, queue, *settings, True)
            lse = found[1]
            grads = {}
            if pairing.kind != QUEUE:
                grads[0] = gpu.backward_keys(scale, queries, batch_keys, lse, *settings, True)
            if queue is not None:
                grads[1] = gpu.backward_keys(scale, queries, queue, lse, *settings, False)
        assert lse.isfinite().all()
        torch.testing.assert_close(found[0], loss, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[2] * SCALE, queries_grad, rtol=1e-4, atol=1e-4)
        for which, grad in grads.items():
            torch.testing.assert_close(grad, keys_grads[which], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("check", [losses_and_gradients])
def test_no_access_is_out_of_bounds_and_results_are_fully_written(check: Any):
    problem = trouble(check)
    assert problem is None, problem
