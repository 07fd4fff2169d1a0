"""Random numbers of operations: theirs alone, of any number, alike on every device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers_operations import CPU, draws_of, target
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.operations.draws import Draws, uniform_on_device
from patchmill.loaders.plan import philox, streams


def draws(ids: list[int], views: list[int], **counter: int) -> Draws:
    counter = {"seed": 0, "epoch": 0, "operation": streams.EXTRA} | counter
    return Draws(target(8), ids=np.array(ids), views=np.array(views), device=CPU, **counter)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**62))
def test_numbers_are_those_of_philox(seed: int, epoch: int, id: int):
    found = draws([id], [3], seed=seed, epoch=epoch, operation=70, calls=2).numbers(6)
    parts = id & 0xFFFFFFFF, id >> 32, epoch, 3 << 16 | 70 << 8 | 2
    key = block(*parts, seed & 0xFFFFFFFF, seed >> 32)[:2]
    words = [*block(0, 0, 0, 0, *key), *block(1, 0, 0, 0, *key)]
    assert found.tolist() == [[(int(word) >> 8) * 2.0**-24 for word in words[:6]]]


def block(*words: int) -> philox.Words:
    return philox.block(*map(np.uint64, words))


def test_every_part_of_the_counter_matters():
    base = {"seed": 1, "epoch": 1, "operation": 64, "calls": 0}
    changed = [base] + [base | {name: value + 1} for name, value in base.items()]
    found = [draws([7], [2], **counter).numbers()[0, 0] for counter in changed]
    found += [draws([8], [2], **base).numbers()[0, 0], draws([7], [3], **base).numbers()[0, 0]]
    assert len(set(found)) == len(found)


def test_a_view_gets_the_same_numbers_in_any_batch():
    together, alone = draws([5, 9, 5], [0, 4, 1]), draws([9], [4])
    for _ in range(2):
        assert (together.numbers(5)[1] == alone.numbers(5)[0]).all()
        assert torch.equal(together.uniform(3, 2)[1], alone.uniform(3, 2)[0])
        assert torch.equal(together.normal(3, 5, 5)[1], alone.normal(3, 5, 5)[0])


@pytest.mark.parametrize("count", [1, 4, 7, 101])
def test_a_gpu_gets_the_same_numbers(count: int):
    keys = np.random.default_rng(0).integers(0, 2**32, (9, 2), np.uint64)
    expected = np.empty((9, count), np.float32)
    streams.fill(keys, expected)
    found = uniform_on_device(torch.from_numpy(keys.astype(np.int64)), count)
    assert found.numpy().tolist() == expected.tolist()


def test_distributions():
    drawn = draws_of(40)
    uniform, normal = drawn.uniform(500, low=-1, high=3), drawn.normal(501)
    assert stats.kstest(uniform.ravel().numpy(), stats.uniform(-1, 4).cdf).pvalue > 0.01
    assert stats.kstest(normal.ravel().numpy(), stats.norm.cdf).pvalue > 0.01
    pairs = np.corrcoef(normal[:, :500].numpy().reshape(-1, 2).T)[0, 1]
    assert abs(pairs) < 0.03 and uniform.dtype == normal.dtype == torch.float32
    assert draws_of(3).uniform().shape == (3,) and draws_of(3).normal(1, 2).shape == (3, 1, 2)


def test_too_many_calls_are_refused():
    drawn = draws_of(1)
    with pytest.raises(MillError, match="at most 256 times"):
        for _ in range(300):
            drawn.numbers()
