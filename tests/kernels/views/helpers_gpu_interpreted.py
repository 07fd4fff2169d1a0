"""GPU renderer run by Triton's interpreter on CPU tensors; importers are skipped without it."""

from __future__ import annotations

from typing import Any

import helpers_interpreter
import numpy as np
import pytest
import torch

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)

from patchmill.kernels.views.gpu import render as gpu

LEVEL = 1 / 255
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)


def render(images: list[np.ndarray], rows: np.ndarray, targets: Any, **options: Any) -> Any:
    for name in ("masks", "backgrounds"):
        if name in options:
            options[name] = [None if it is None else torch.from_numpy(it) for it in options[name]]
    return gpu.render([torch.from_numpy(image) for image in images], rows, targets, **options)
