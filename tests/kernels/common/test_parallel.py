"""What is shared out is done once and whole, by threads whose torch has no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from patchmill.kernels.common.parallel import parallel_for


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    usual = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(usual)


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_all_is_done_once_by_single_threads(threads: int, count: int):
    done: list[int] = []
    counts, recording = set(), set()

    def work(item: int) -> None:
        counts.add(torch.get_num_threads())
        recording.add(torch.is_grad_enabled())
        done.append(item)

    parallel_for(work, count)
    assert sorted(done) == list(range(count))
    assert counts | recording <= {1, False}
    assert torch.get_num_threads() == threads and torch.is_grad_enabled()


def test_threads_that_begin_later_have_as_many_as_before(threads: int):
    parallel_for(lambda item: None, 2 * threads)
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert found == [threads]


def test_what_fails_is_told_when_all_have_ended(threads: int):
    ended: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            raise KeyError("the first")
        ended.append(item)

    with pytest.raises(KeyError, match="the first"):
        parallel_for(work, 9)
    assert ended == ([] if threads == 1 else list(range(1, 9)))
