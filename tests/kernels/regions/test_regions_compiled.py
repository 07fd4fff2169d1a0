"""The kernels become machine code for an A100 and an H100 without a GPU, and fit."""

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

MOST_REGISTERS = 128  # so that 16 warps, 4 blocks of 1024 channels, run at once
MOST_SPILLED = 32  # bytes a thread: a few values that live outside of the loops
MOST_SHARED = 16 * 1024
POINTERS = {
    **dict.fromkeys(("boxes", "shares", "far_shares", "weight"), "*fp32"),
    **dict.fromkeys(("cosines", "toward", "along"), "*fp32"),
    **dict.fromkeys(("spans", "far_spans"), "*i32"),
    **dict.fromkeys(("index", "poses", "order", "ends", "of_student", "of_teacher"), "*i64"),
}
OF_MAPS = ("maps", "student", "teacher", "gradient", "out")
EVERY = (kernels.pool, kernels.unpool, kernels.compare, kernels.slope)

# Channels, size of a grid, longer side of a map, type.
USUAL = [(768, 10, 14, "bf16"), (768, 4, 6, "fp32")]
OTHERS = [(4096, 4, 14, "fp16"), (384, 7, 50, "bf16"), (1, 1, 1, "fp32"), (33, 3, 7, "bf16")]


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("sizes", USUAL, ids=str)
def test_usual_sizes(sizes: Any, capability: int, tmp_path: Path):
    for kernel in EVERY:
        assert_fits(kernel, sizes, capability, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_other_sizes(capability: int, tmp_path: Path):
    for sizes in OTHERS:
        for kernel in EVERY:
            assert_fits(kernel, sizes, capability, tmp_path)


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize(("size", "long"), [(4, 14), (10, 14), (7, 600)])
def test_shares(size: int, long: int, capability: int, tmp_path: Path):
    constants = gpu.of_shares(size, long)
    options = {"num_warps": constants.pop("num_warps"), **gpu.COMPILER}
    types = {name: POINTERS.get(name, "i32") for name in kernels.share_out.arg_names}
    found = resource_usage(kernels.share_out, types, constants, options, capability, tmp_path)
    assert found.spilled <= MOST_SPILLED and found.shared <= MOST_SHARED, found


def assert_fits(kernel: Any, sizes: Any, capability: int, folder: Path) -> None:
    channels, size, long, number = sizes
    of_block = gpu.of_block(channels)
    options = {"num_warps": of_block.pop("num_warps"), **gpu.COMPILER}
    constants: dict[str, Any] = {"C": channels, "K": size, "LONG": long, **of_block}
    constants |= {"FAR_LONG": 14} if "FAR_LONG" in kernel.arg_names else {}
    for posed in (True, False) if kernel is kernels.unpool else (True,):
        if kernel is kernels.unpool:
            constants |= {"BINS": gpu.bins(size), "POSED": posed}
        types = {name: POINTERS.get(name, "i32") for name in kernel.arg_names}
        types |= {name: f"*{number}" for name in OF_MAPS if name in types}
        given = constants if posed else constants | {"poses": None}
        found = resource_usage(kernel, types, given, options, capability, folder)
        assert found.registers <= MOST_REGISTERS, (kernel, found)
        assert found.spilled <= MOST_SPILLED and found.shared <= MOST_SHARED, (kernel, found)
