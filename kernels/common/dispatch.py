"""Dispatch by device: `cpu` or `gpu` module, current GPU and its properties; contiguous tensors."""

from __future__ import annotations

import contextlib
import importlib
from contextlib import AbstractContextManager
from types import ModuleType

import torch

from patchmill.kernels import compiled_code

# Triton executes the code in its cache.
compiled_code.keep_private(compiled_code.TRITON, compiled_code.triton_default())

MIN_SHARED = 99 << 10  # bytes: minimum among GPUs that Triton supports (sm_86, sm_89, sm_120)


def backend(package: str, tensor: torch.Tensor) -> ModuleType:
    """`package`.gpu for a CUDA tensor, else `package`.cpu; pass `__package__`.

    The module is imported on first use: Triton only if there is a GPU.
    """
    return importlib.import_module(f"{package}.{'gpu' if tensor.is_cuda else 'cpu'}")


def device_guard(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Make the tensor's GPU current, so that Triton launches on it; no-op for CPU tensors."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def multiprocessors(device: torch.device, interpreted: int) -> int:
    """Streaming multiprocessors of a GPU; `interpreted` if Triton interprets on the CPU."""
    if device.type != "cuda":
        return interpreted
    return torch.cuda.get_device_properties(device).multi_processor_count


def shared_memory(device: torch.device, interpreted: int) -> int:
    """Bytes of shared memory that a program may use on a GPU; `interpreted` as above."""
    if device.type != "cuda":
        return interpreted
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", MIN_SHARED)


def contiguous(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors, copied if they are not contiguous."""
    return tuple(tensor.contiguous() for tensor in tensors)
