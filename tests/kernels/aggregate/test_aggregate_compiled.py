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

from patchmill.kernels.aggregate import gpu, gpu_kernels

TYPES = {
    "rows": "*bf16", "grad_rows": "*bf16", "offsets": "*i64", "order": "*i64",
    "segments": "i32", "splits": "i32",
}  # fmt: skip
PLAIN = {"weights": None, "order": None, "grad_weights": None}  # optional arguments


def needed(
    kernel: Any, d: int, number: str, each: bool, without: Any, capability: int, folder: Path
) -> Any:
    sizes = gpu.tile(d)
    every = {
        "D": d, "BLOCK_D": sizes.d, "BLOCK_ROWS": sizes.rows, "STAGES": gpu.stages(d),
        "UNIT_ROWS": each, "UNIT_MEAN": True, "ONE_SPLIT": True, **without,
    }  # fmt: skip
    constants = {name: value for name, value in every.items() if name in kernel.arg_names}
    types = {name: TYPES.get(name, "*fp32") for name in kernel.arg_names}
    types |= {name: number for name in ("rows", "grad_rows") if name in types}
    options = {"num_warps": sizes.num_warps}
    return resource_usage(kernel, types, constants, options, capability, folder)


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("name", ["forward_split", "backward_split"])
@pytest.mark.parametrize("d, number", [(384, "*fp32"), (2048, "*bf16"), (4096, "*fp32")])
def test_means(d: int, name: str, number: str, capability: int, tmp_path: Path):
    kernel = getattr(gpu_kernels, name)
    for each, without in ((False, PLAIN), (True, PLAIN), (True, {})):
        found = needed(kernel, d, number, each, without, capability, tmp_path)
        assert found.spilled <= 16, (each, without)
        assert found.registers <= 168, "at least three programs must fit on a multiprocessor"
        assert found.shared <= 34 * 1024, "six programs must fit on a multiprocessor"
        if name == "forward_split":  # rows are loaded ahead
            assert found.shared >= 2 * 4096 * int(number[-2:]) // 8


@pytest.mark.slow
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_short_and_long_rows(capability: int, tmp_path: Path):
    for d in (1, 37, 16384, 32768):
        for name in ("forward_split", "reduce_splits", "backward_split"):
            kernel = getattr(gpu_kernels, name)
            found = needed(kernel, d, "*bf16", True, {}, capability, tmp_path)
            assert found.spilled <= 256 and found.shared <= 96 * 1024, (d, name)
