"""Check access to a GPU's JPEG engines, through the video library of NVIDIA's driver.

A container has that library only if it was started with the driver's video capability. Without it,
DALI's decoder still works, on the GPU's other cores, and does not report that the engines are idle.
"""

from __future__ import annotations

import ctypes

LIBRARY = "libnvcuvid.so.1"
COST = "the GPU's JPEG engines cannot be used; its other cores decode instead"
REMEDY = "start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"


def unreachable() -> str | None:
    """Reason why the engines cannot be reached, in a few words; None if the library loads."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        missing = "No such file" in str(error) or "not found" in str(error)
        return "missing" if missing else " ".join(str(error).split())
    return None
