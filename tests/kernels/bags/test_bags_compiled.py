"""Compile the kernels for A100 and H100 without a GPU; bound registers, spills, shared memory.

Occupancy must suffice to hide memory latency.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch

if not importlib.util.find_spec("triton"):
    pytest.skip("needs Triton", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted in this process", allow_module_level=True)

from helpers_compile import ARCHITECTURES, resource_usage

from patchmill.kernels.bags import MAX_GPU_D, gpu
from patchmill.kernels.bags import gpu_kernels as kernels
from patchmill.kernels.common.dispatch import MIN_SHARED

SHARED = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}  # bytes per multiprocessor
OF_A_PROGRAM = {80: 163 << 10, 89: MIN_SHARED, 90: 227 << 10, 100: 227 << 10}  # bytes, at most
REGISTERS = 65536  # per multiprocessor
LEAST_WARPS = 16
NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
FLOATS = ("partial", "saved", "losses", "grad_loss")

# Kernel, views, d, type.
VARIANTS = [
    (kernels.forward_bag, 2, 128, "bf16"),
    (kernels.forward_bag, 20, 1024, "fp32"),
    (kernels.forward_split, 200, 1024, "bf16"),
    (kernels.forward_split, 200, 1024, "fp32"),
    (kernels.forward_split, 200, 4096, "fp16"),
    (kernels.reduce_splits, 200, 1024, "bf16"),
    (kernels.backward_split, 2, 128, "fp32"),
    (kernels.backward_split, 8, 3000, "fp32"),
    (kernels.backward_split, 200, 1024, "bf16"),
    (kernels.backward_split, 200, 4096, "fp32"),
]


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda it: f"{it[0].__name__}-{it[2]}-{it[3]}")
def test_kernels_fit(variant: Any, capability: int, tmp_path: Path):
    kernel, views, d, dtype = variant
    found, num_warps = needs_of(kernel, views, d, dtype, capability, tmp_path)
    programs = SHARED[capability] // (found.shared + 1024)
    programs = min(programs, REGISTERS // (found.registers * 32 * num_warps), 32)
    assert found.spilled == 0
    assert programs * num_warps >= LEAST_WARPS


@pytest.mark.parametrize("capability", [*ARCHITECTURES, 89])
@pytest.mark.parametrize(
    "kernel", [kernels.forward_bag, kernels.forward_split, kernels.backward_split]
)
def test_the_longest_rows_fit(kernel: Any, capability: int, tmp_path: Path):
    """Also on a GPU with the least shared memory, such as a GeForce or an L40S."""
    found, num_warps = needs_of(kernel, 8, MAX_GPU_D, "fp32", capability, tmp_path)
    assert found.spilled <= 64
    assert found.shared <= OF_A_PROGRAM[capability]
    assert found.registers * 32 * num_warps <= REGISTERS


def needs_of(
    kernel: Any, views: int, d: int, dtype: str, capability: int, folder: Path
) -> tuple[Any, int]:
    block_d, rows, num_warps = block = gpu.blocks(views, d)
    saved = views > 8
    stages = gpu.stages(block, getattr(torch, NAMES[dtype]), OF_A_PROGRAM[capability])
    constants = {"D": d, "BLOCK_D": block_d, "BLOCK_ROWS": rows, "STAGES": stages}
    constants |= {"SAVE": saved, "SAVED": saved}
    constants = {name: it for name, it in constants.items() if name in kernel.arg_names}
    types = {name: "i32" for name in kernel.arg_names} | {"scale": "fp32"}
    types |= dict.fromkeys(FLOATS, "*fp32") | dict.fromkeys(("z", "out"), f"*{dtype}")
    return resource_usage(
        kernel, types, constants, {"num_warps": num_warps, **gpu.COMPILER}, capability, folder
    ), num_warps
