"""Render a few batches under compute-sanitizer; run as a program by a test.

PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer python tests/kernels/views/helpers_sanitized.py
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # every tensor is a separate allocation
sys.path.insert(0, str(Path(__file__).parents[3]))

import numpy as np
import torch
from helpers_pictures import make_image

from patchmill.kernels import views
from patchmill.loaders import presets
from patchmill.loaders.plan import draw


def main() -> None:
    for seed, (name, make) in enumerate(presets.ALL.items()):
        recipe = make()
        shapes = [(5 + 31 * seed, 40 + i) for i in range(6)]
        images = [make_image("noise", *shape) for shape in shapes]
        rows = draw.draw(recipe, seed, 0, range(len(shapes)), shapes).rows
        for dtype, channels_last in ((torch.bfloat16, True), (torch.float32, False)):
            there = [on_gpu(image) for image in images]
            targets = draw.targets(recipe)
            views.render(there, rows, targets, dtype=dtype, channels_last=channels_last)
            torch.cuda.synchronize()
        print(name)


def on_gpu(image: np.ndarray) -> torch.Tensor:
    """Upload with padding to the end of the last 32-bit word, which is read entirely."""
    memory = torch.empty(image.size + 3, dtype=torch.uint8, device="cuda")
    there = memory[: image.size].view(image.shape)
    return there.copy_(torch.from_numpy(image))


if __name__ == "__main__":
    main()
