"""Compile the kernels for A100 and H100 without a GPU; bound registers, spills, shared memory."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

if not importlib.util.find_spec("triton"):
    pytest.skip("needs Triton", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted in this process", allow_module_level=True)

from helpers_compile import ARCHITECTURES, resource_usage

from patchmill.kernels.grid import gpu, gpu_kernels

TYPES = {
    "images": "*u8", "index": "*i64", "positions": "*i64", "scales": "*fp32", "out": "*bf16",
    "grad_patches": "*bf16",
}  # fmt: skip


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("size", [5, 32, 224])
def test_grids(size: int, ragged: bool, capability: int, tmp_path: Path):
    pixels = min(1 << (size * size - 1).bit_length(), gpu.BLOCK)
    constants = {
        "SIZE": size,
        "CHANNELS": 3,
        "BLOCK_PATCHES": gpu.BLOCK // pixels,
        "BLOCK_PIXELS": pixels,
    }
    for kernel, more in ((gpu_kernels.unfold, {"RAGGED": ragged}), (gpu_kernels.fold, {})):
        types = {name: TYPES.get(name, "i32") for name in kernel.arg_names}
        if ragged and kernel is gpu_kernels.unfold:
            types["images"] = "*i64"
        used = {k: v for k, v in (constants | more).items() if k in kernel.arg_names}
        found = resource_usage(kernel, types, used, {"num_warps": 4}, capability, tmp_path)
        assert found.spilled <= 16 and found.registers <= 96
        assert found.shared <= 2 * 1024, "sixteen programs must leave an A100 its L1 cache"
