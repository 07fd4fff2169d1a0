"""Skip modules whose kernels need Triton's interpreter if it is off or broken.

The interpreter is on or off for a whole process: tests/test_interpreted.py starts one with it on.
"""

from __future__ import annotations

import os

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def skip_reason() -> str | None:
    """Why this process cannot interpret kernels, or None if it can."""
    if not INTERPRETED:
        return "needs TRITON_INTERPRET=1 from the start"
    import torch
    import triton
    import triton.language as tl

    @triton.jit
    def count_to(number):
        for _ in range(0, tl.load(number)):
            pass

    try:
        count_to[(1,)](torch.ones(1, dtype=torch.int32))
    except Exception as error:
        return f"Triton's interpreter and NumPy do not agree: {error}"
    return None
