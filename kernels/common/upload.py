"""`upload`: an asynchronous copy of a small tensor to a GPU."""

from __future__ import annotations

import torch


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to a device; on a GPU the copy is in stream order and does not block.

    It goes through page-locked memory: from pageable memory, CUDA copies once the stream is idle,
    and the program waits for that. torch reclaims the page-locked memory when the copy is done.
    """
    if device.type == "cuda" and not torch.compiler.is_compiling():  # which cannot lock pages
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
