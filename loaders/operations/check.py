"""`check`: test that an operation keeps the guarantees of recipes for every view."""

from __future__ import annotations

import numpy as np
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.operation import Operation
from patchmill.loaders.recipe import Recipe, Views

_SAMPLES, _COUNT = 4, 2
_CLOSE = 1e-3  # of the range 0 to 1: SIMD code may round differently at the ends of an array


def check(
    operation: Operation,
    *,
    size: int = 32,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> None:
    """Raise a MillError unless a view's result depends on the view and its draws alone.

    Applies the operation to a batch of noise, to the batch again, and to each of its samples alone.
    Meant for tests of your own operations; `build` only tests shapes and dtypes.
    """
    from patchmill.loaders.pipelines.extra import open_extra

    recipe = Recipe((Views("views", _COUNT, size, extra=(operation,)),))
    device = torch.device(device)
    extra = open_extra(recipe, 0, dtype, device)
    assert extra is not None
    shape = (_SAMPLES, _COUNT, 3, size, size)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    lighter = torch.linspace(0.3, 3, _SAMPLES * _COUNT, device=device).view(*shape[:2], 1, 1, 1)
    noise = noise**lighter  # so that a mean over several views is not that of one
    before = (noise * 255).to(dtype) if dtype == torch.uint8 else (2 * noise - 1).to(dtype)

    def applied(*slots: int) -> torch.Tensor:
        views = before[list(slots)].clone()
        extra.apply({"views": views}, 0, np.array(slots, np.int64))
        return views.float()

    together = applied(*range(_SAMPLES))
    close = _CLOSE * 255 if dtype == torch.uint8 else 10 * _CLOSE
    if not torch.allclose(applied(*range(_SAMPLES)), together, rtol=0, atol=close):
        raise MillError(
            f"the operation {operation.kind} gives different results for the same views: take "
            "all random numbers from `draws`, and keep no state between calls"
        )
    for slot in range(_SAMPLES):
        if not torch.allclose(applied(slot)[0], together[slot], rtol=0, atol=close):
            raise MillError(
                f"the operation {operation.kind} gives a view a different result in another "
                "batch: let it depend on the view and its draws alone, and always draw the same "
                "numbers"
            )
