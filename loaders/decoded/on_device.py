"""`cache="device:20GB"`: the capacity of a cache of decoded images in GPU memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import spec
from patchmill.loaders.decoded.spec import size_text

if TYPE_CHECKING:
    import torch


def device_capacity(text: Any, device: torch.device) -> int | None:
    """Bytes of GPU memory that `cache=` requests; None for another kind of cache, or none.

    Raises a MillError if the device is not a GPU, or has less free memory.
    """
    if text is None or (wanted := spec.parse(text)).kind != "device":
        return None
    if device.type != "cuda":
        raise MillError(
            f"cache={text!r} keeps images in GPU memory, but device is {str(device)!r}: use "
            f"cache='ram:{size_text(wanted.capacity)}', or device='cuda'"
        )
    free = free_bytes(device)
    if wanted.capacity > free:
        raise MillError(
            f"cache={text!r} is larger than the {size_text(free)} free on {device}: use a smaller "
            "one"
        )
    return wanted.capacity


def free_bytes(device: torch.device) -> int:
    """GPU memory still available to tensors, including the unused part of torch's pool."""
    import torch

    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
