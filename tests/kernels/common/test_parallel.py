"""`parallel_for` runs each item once, in threads where torch is single-threaded."""

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
def test_each_item_runs_once_single_threaded(threads: int, count: int):
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


def test_later_threads_keep_the_default_number_of_torch_threads(threads: int):
    parallel_for(lambda item: None, 2 * threads)
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert found == [threads]


def test_an_error_is_raised_after_all_items_ended(threads: int):
    ended: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            raise KeyError("the first")
        ended.append(item)

    with pytest.raises(KeyError, match="the first"):
        parallel_for(work, 9)
    assert ended == ([] if threads == 1 else list(range(1, 9)))
