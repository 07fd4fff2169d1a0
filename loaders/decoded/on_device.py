"""`cache="device:20GB"`: how many bytes of decoded images to keep in a GPU's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import spec
from patchmill.loaders.decoded.spec import size_text

if TYPE_CHECKING:
    import torch


def device_capacity(text: Any, device: torch.device) -> int | None:
    """Bytes that `cache=` asks of the device; None if it asks for another kind of cache, or none.

    Raises a MillError if the device is no GPU, or has less memory.
    """
    if text is None or (wanted := spec.parse(text)).kind != "device":
        return None
    if device.type != "cuda":
        raise MillError(
            f"cache={text!r} keeps images in a GPU's memory, and device is {str(device)!r}: take "
            f"cache='ram:{size_text(wanted.capacity)}', or device='cuda'"
        )
    free = free_bytes(device)
    if wanted.capacity > free:
        raise MillError(
            f"cache={text!r} is larger than the {size_text(free)} that {device} has free: take a "
            "smaller one"
        )
    return wanted.capacity


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU that tensors can still get, with what torch keeps for them."""
    import torch

    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
