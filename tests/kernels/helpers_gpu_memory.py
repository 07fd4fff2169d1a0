"""Peak GPU memory of a function."""

from __future__ import annotations

from collections.abc import Callable

import torch


def peak_extra_memory(function: Callable[[], object]) -> int:
    """Peak bytes above the previous allocation, on the second call: the first one compiles."""
    function()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = function()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before
