"""`upload`: a small tensor's way to a GPU that makes nobody wait."""

from __future__ import annotations

import torch


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor on a device; a GPU gets it in the order of its stream, and nothing waits for it.

    It goes through page-locked memory: from other memory, CUDA copies when the stream is idle, and
    the program waits for that. torch takes the page-locked memory back when the copy is over.
    """
    if device.type == "cuda" and not torch.compiler.is_compiling():  # which cannot lock pages
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
