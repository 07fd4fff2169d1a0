"""Compile the kernels for A100 and H100 without a GPU; bound registers, spills, shared memory."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

if not importlib.util.find_spec("triton"):
    pytest.skip("needs Triton", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted in this process", allow_module_level=True)

from helpers_compile import ARCHITECTURES, resource_usage

from patchmill.kernels.regions import gpu
from patchmill.kernels.regions import gpu_kernels as kernels

MOST_REGISTERS = 128  # so that 16 warps, 4 blocks of 1024 channels, are resident
MOST_SPILLED = 32  # bytes per thread: a few values that live outside the loops
MOST_SHARED = 16 * 1024
POINTERS = {
    **dict.fromkeys(("boxes", "weights", "teacher_weights", "region_weight"), "*fp32"),
    **dict.fromkeys(("cosines", "scale_t", "scale_s"), "*fp32"),
    **dict.fromkeys(("extents", "teacher_extents"), "*i32"),
    **dict.fromkeys(("index", "poses", "order", "offsets"), "*i64"),
    **dict.fromkeys(("student_index", "teacher_index"), "*i64"),
}
MAPS = ("maps", "student", "teacher", "grad_pooled", "out")  # of the caller's dtype
KERNELS = (kernels.pool, kernels.pool_backward, kernels.compare_bins, kernels.grad_bins)

# Channels, size of a grid, longer side of a map, type.
USUAL = [(768, 10, 14, "bf16"), (768, 4, 6, "fp32")]
OTHERS = [(4096, 4, 14, "fp16"), (384, 7, 50, "bf16"), (1, 1, 1, "fp32"), (33, 3, 7, "bf16")]


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("sizes", USUAL, ids=str)
def test_usual_sizes(sizes: Any, capability: int, tmp_path: Path):
    for kernel in KERNELS:
        assert_fits(kernel, sizes, capability, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_other_sizes(capability: int, tmp_path: Path):
    for sizes in OTHERS:
        for kernel in KERNELS:
            assert_fits(kernel, sizes, capability, tmp_path)


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize(("size", "side"), [(4, 14), (10, 14), (7, 600)])
def test_bin_weights(size: int, side: int, capability: int, tmp_path: Path):
    constants = gpu.weight_blocks(size, side)
    options = {"num_warps": constants.pop("num_warps"), **gpu.COMPILER}
    types = {name: POINTERS.get(name, "i32") for name in kernels.bin_weights.arg_names}
    found = resource_usage(kernels.bin_weights, types, constants, options, capability, tmp_path)
    assert found.spilled <= MOST_SPILLED and found.shared <= MOST_SHARED, found


def assert_fits(kernel: Any, sizes: Any, capability: int, folder: Path) -> None:
    channels, size, side, number = sizes
    blocks = gpu.pool_blocks(channels)
    options = {"num_warps": blocks.pop("num_warps"), **gpu.COMPILER}
    constants: dict[str, Any] = {"C": channels, "K": size, "SIDE": side, **blocks}
    constants |= {"TEACHER_SIDE": 14} if "TEACHER_SIDE" in kernel.arg_names else {}
    for posed in (True, False) if kernel is kernels.pool_backward else (True,):
        if kernel is kernels.pool_backward:
            constants |= {"BLOCK_K": gpu.block_k(size), "POSED": posed}
        types = {name: POINTERS.get(name, "i32") for name in kernel.arg_names}
        types |= {name: f"*{number}" for name in MAPS if name in types}
        used = constants if posed else constants | {"poses": None}
        found = resource_usage(kernel, types, used, options, capability, folder)
        assert found.registers <= MOST_REGISTERS, (kernel, found)
        assert found.spilled <= MOST_SPILLED and found.shared <= MOST_SHARED, (kernel, found)
