"""Kernels on CPU tensors, by Triton's interpreter; modules that import this are skipped without.

It is on for a whole process or off.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1 from the start", allow_module_level=True)

import triton
import triton.language as tl

from patchmill.kernels.views import gpu


@triton.jit
def counts_to(number):
    for _ in range(0, tl.load(number)):
        pass


try:
    counts_to[(1,)](torch.ones(1, dtype=torch.int32))
except Exception as error:
    pytest.skip(f"Triton's interpreter and NumPy do not agree: {error}", allow_module_level=True)

LEVEL = 1 / 255
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)


def render(images: list[np.ndarray], rows: np.ndarray, targets: Any, **options: Any) -> Any:
    for name in ("masks", "companions"):
        if name in options:
            options[name] = [None if it is None else torch.from_numpy(it) for it in options[name]]
    return gpu.render([torch.from_numpy(image) for image in images], rows, targets, **options)
