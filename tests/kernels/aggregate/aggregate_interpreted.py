"""The Triton kernels, interpreted on CPU tensors, against the CPU backend and the reference.

TRITON_INTERPRET=1 python -m pytest tests/kernels/aggregate/aggregate_interpreted.py
"""

from __future__ import annotations

from typing import Any

import helpers_interpreter
import pytest
import torch

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from helpers_aggregate import NORMALISE, assert_right, make, results

from patchmill.kernels.aggregate import aggregate, gpu, operators


@pytest.fixture(autouse=True)
def gpu_backend(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operators, "backend", lambda package, tensor: gpu)


def by_public_function(case: Any, normalise: Any) -> list[torch.Tensor]:
    whose = {"index": case.index, "images": case.images, "normalise": normalise}
    return results(lambda rows, weights: aggregate(rows, weights=weights, **whose), case)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "d, dtype", [(1, torch.float32), (37, torch.float32), (37, torch.float16), (64, torch.bfloat16)]
)
def test_means_and_all_gradients(
    d: int, weighted: bool, normalise: str, dtype: torch.dtype, splits: int,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(gpu, "split_count", lambda *_: splits)
    case = make([3, 0, 71, 1, 2], d, dtype, weighted, mixed=True, seed=d)
    assert_right(by_public_function(case, normalise), case, normalise)


def test_long_rows(monkeypatch: pytest.MonkeyPatch):
    for d, splits in ((4097, 1), (4096, 2), (9001, 2)):
        monkeypatch.setattr(gpu, "split_count", lambda *_, splits=splits: splits)
        case = make([3, 2], d, torch.float32, True, mixed=False)
        assert_right(by_public_function(case, "each"), case, "each")


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("splits", [1, 2])
def test_zero_rows_nan_and_inf(splits: int, normalise: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "split_count", lambda *_: splits)
    rows = torch.zeros(8, 5)
    rows[6:] = torch.tensor([[1, 2, torch.inf, 4, 5], [1, torch.nan, 3, 4, 5]])
    rows.requires_grad_()
    means = aggregate(rows, [4, 0, 2, 1, 1], normalise=normalise)
    means.sum().backward()
    assert not means[:3].any() and rows.grad[:6].isfinite().all()
    assert rows.grad[:6].any() == (normalise == "none")
    assert not means[3, 2].isfinite() and means[4, 1].isnan()


def test_split_count_keeps_a_gpu_busy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "INTERPRETED_MULTIPROCESSORS", 132)
    device = torch.device("cpu")
    assert gpu.split_count(4096, 4096 * 256, 512, device) == 1
    assert gpu.split_count(256, 256 * 256, 512, device) == 5
    assert gpu.split_count(1, 256, 512, device) == 8
    assert gpu.split_count(1, 3, 512, device) == gpu.split_count(3, 0, 1, device) == 1


def test_too_long_rows_are_refused():
    with pytest.raises(ValueError, match="at most 32768 numbers, not 40000"):
        aggregate(torch.zeros(2, 40000), [2])
