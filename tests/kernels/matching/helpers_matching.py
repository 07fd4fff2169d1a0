"""Maps and pairs to match, tolerances, and small cases with exact results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from patchmill.kernels.matching import reference

# On top of twice the error of plain PyTorch in the same dtype: a few units in the last place.
LAST_PLACES = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@dataclass(frozen=True)
class Case:
    """Number of `maps` and `tokens` of a and of b, and of random pairs of maps."""

    maps: tuple[int, int]
    tokens: tuple[int, int]
    d: int
    pairs: int
    keep: int = 1
    seed: int = 0

    def make(self, dtype: torch.dtype, device: str = "cpu") -> tuple[torch.Tensor, ...]:
        """a, b, and the two sides of the pairs."""
        drawn = torch.Generator().manual_seed(self.seed)
        a, b = (
            torch.randn(maps, tokens, self.d, generator=drawn).to(device, dtype)
            for maps, tokens in zip(self.maps, self.tokens, strict=True)
        )
        sides = (torch.randint(maps, (self.pairs,), generator=drawn) for maps in self.maps)
        return a, b, *(side.to(device) for side in sides)

    def weights(self, device: str = "cpu") -> torch.Tensor:
        """A weight for each pair's loss."""
        drawn = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(self.pairs, generator=drawn).to(device)


CASES = [
    Case((4, 3), (36, 196), 48, 9, 18),
    Case((2, 4), (49, 49), 64, 8, 24, seed=1),
    Case((3, 2), (7, 5), 3, 10, 3),
    Case((1, 1), (1, 1), 4, 3),
    Case((2, 2), (17, 1), 130, 4),
    Case((3, 3), (2, 31), 2, 5, 2),
    Case((2, 1), (13, 11), 4096, 3, 11),
    Case((1, 2), (601, 1100), 16, 3, 300),
]


def loss_and_gradient(
    correspond: Any, case: Case, inputs: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """`correspond` takes a, b, keep and the pairs; the gradient is of the weighted loss sum."""
    a, b, *pairs = inputs
    a = a.detach().clone().requires_grad_()
    losses = correspond(a, b, case.keep, tuple(pairs))
    (losses * case.weights(str(losses.device))).sum().backward()
    assert a.grad is not None
    return losses.detach(), a.grad


def by_reference(a: torch.Tensor, b: torch.Tensor, keep: int, pairs: Any) -> torch.Tensor:
    return reference.correspond(a, b, keep, *pairs)


def assert_losses(
    ours: torch.Tensor, plain: torch.Tensor, truth: torch.Tensor, within: float = 1e-6
) -> None:
    """Ours accumulates in float32 for any dtype; plain PyTorch does not always."""
    assert ours.dtype == torch.float32
    assert error(ours, truth) <= min(2 * error(plain, truth), 10 * within) + within


def assert_gradient(
    ours: torch.Tensor,
    plain: torch.Tensor,
    truth: torch.Tensor,
    case: Case,
    a: torch.Tensor,
) -> None:
    """Terms of a gradient may be far larger than the gradient."""
    assert ours.dtype == a.dtype
    parts = case.weights().abs().max() / (2 * case.keep * a.double().norm(dim=2).min().cpu())
    within = 2 * error(plain, truth) + LAST_PLACES[a.dtype] * max(parts, truth.abs().max().cpu())
    assert error(ours, truth) <= within


def assert_matches(found: Any, inputs: tuple[torch.Tensor, ...], within: float = 1e-6) -> None:
    """Similarities are correct, and each index has that similarity."""
    a, b, a_index, b_index = (it.cpu() for it in inputs)
    cosines = reference.unit(a.double())[a_index] @ reference.unit(b.double())[b_index].mT
    for side, (similarity, index) in enumerate((found[:2], found[2:])):
        assert similarity.dtype == torch.float32 and index.dtype == torch.int64
        ours, index = similarity.cpu().double(), index.cpu()
        expected = cosines.transpose(1, 2) if side else cosines
        assert 0 <= index.min() and index.max() < expected.shape[2]
        torch.testing.assert_close(ours, expected.amax(2), rtol=0, atol=within)
        at_index = expected.gather(2, index[..., None])[..., 0]
        torch.testing.assert_close(at_index, expected.amax(2), rtol=0, atol=2 * within)


def error(found: torch.Tensor, truth: torch.Tensor) -> Any:
    return (found.double() - truth.double()).abs().max().cpu()


# -------------------------------------------------------------------- small cases, exact results


def tied() -> tuple[torch.Tensor, torch.Tensor]:
    """Exact cosines: tokens 0 and 2 of a are equal, as are 1, 2 and 4 of b; token 3 of a is 0."""
    x, y, zero = [1.0, 0, 0, 0], [0.0, 2, 0, 0], [0.0, 0, 0, 0]
    a = torch.tensor([[x, y, x, zero]])
    b = torch.tensor([[[0.0, 0, 4, 0], x, x, y, x, zero]])
    return a, b


TIED = {  # of `tied`
    "similarity_a": [1.0, 1, 1, 0],
    "index_a": [1, 3, 1, 0],
    "similarity_b": [0.0, 1, 1, 1, 1, 0],
    "index_b": [0, 0, 0, 1, 0, 0],
}
TIED_MATCHES = {  # the matches kept, for each number to keep
    1: ([1, -1, -1, -1], [-1, 0, -1, -1, -1, -1]),
    2: ([1, 3, -1, -1], [-1, 0, 0, -1, -1, -1]),
    4: ([1, 3, 1, 0], [-1, 0, 0, 1, 0, -1]),
}


def with_bad_value(value: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`tied` twice, with `value` in token 1 of the second map of a, and in token 2 of b's."""
    a, b = (torch.cat([it, it]) for it in tied())
    a[1, 1, 3], b[1, 2, 0] = value, value
    return a, b
