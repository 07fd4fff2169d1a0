"""Embeddings of several images, and tolerances of means and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from patchmill.kernels.aggregate import reference

NORMALISE = ("none", "each", "mean")
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# On top of twice the error of plain PyTorch; relative to the largest value, or to 1.
SLACK = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}

Function = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


class Case(NamedTuple):
    rows: torch.Tensor  # [P, d]
    index: torch.Tensor  # [P]
    images: int
    weights: torch.Tensor | None
    gradient: torch.Tensor  # [images, d], of the means


def make(
    counts: list[int], d: int, dtype: torch.dtype, weighted: bool, mixed: bool, seed: int = 0
) -> Case:
    random = torch.Generator().manual_seed(seed)
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    if mixed:
        index = index[torch.randperm(len(index), generator=random)]
    rows = torch.randn(len(index), d, generator=random) + 0.3
    if d < 8:  # near zero, gradients are arbitrarily large
        rows = rows.abs() + 0.5
    weights = torch.rand(len(index), generator=random) + 0.5 if weighted else None
    gradient = torch.randn(len(counts), d, generator=random)
    return Case(rows.to(dtype), index, len(counts), weights, gradient)


def results(
    function: Function, case: Case, working: torch.dtype | None = None
) -> list[torch.Tensor]:
    """The means, and the gradients w.r.t. rows and weights, computed in `working`."""
    rows, weights = case.rows.detach(), case.weights
    if working is not None:
        rows = rows.to(working)
        weights = None if weights is None else weights.to(working)
    leaves = [rows.requires_grad_()]
    if weights is not None:
        leaves.append(weights.detach().requires_grad_())
    means = function(rows, leaves[1] if weights is not None else None)
    return [means, *torch.autograd.grad(means, leaves, case.gradient.to(means))]


def plain(rows: torch.Tensor, case: Case, normalise: str, weights: torch.Tensor | None):
    return reference.aggregate(rows, case.index.to(rows.device), case.images, normalise, weights)


def assert_right(ours: list[torch.Tensor], case: Case, normalise: str) -> None:
    def function(rows: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        return plain(rows, case, normalise, weights)

    truth, theirs = results(function, case, torch.float64), results(function, case)
    sizes = (1, 1, case.rows.shape[1] ** 0.5)  # w.r.t. a weight: sums over a row that nearly cancel
    for mine, its, right, size in zip(ours, theirs, truth, sizes, strict=False):
        assert mine.shape == right.shape
        if right.numel():
            error, other = ((it.cpu().double() - right).abs().max() for it in (mine, its))
            allowed = SLACK[mine.dtype] * max(size, right.abs().max())
            assert error <= 2 * other + allowed, (size, error, other)
