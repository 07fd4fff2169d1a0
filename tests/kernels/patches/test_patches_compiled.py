"""The GPU's kernels become machine code for an A100 and an H100 without a GPU, and fit."""

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

from patchmill.kernels.patches import gpu_grid, gpu_kernels, gpu_mean

MEAN_TYPES = {
    "rows": "*bf16", "out": "*bf16", "offsets": "*i64", "order": "*i64", "groups": "i32",
    "splits": "i32",
}  # fmt: skip
GRID_TYPES = {
    "images": "*u8", "index": "*i64", "positions": "*i64", "scales": "*fp32", "out": "*bf16",
    "gradient": "*bf16",
}  # fmt: skip
PLAIN = {"weights": None, "order": None, "gains": None}  # what a call may do without


def needed(
    kernel: Any, d: int, number: str, each: bool, without: Any, capability: int, folder: Path
) -> Any:
    sizes = gpu_mean.tile(d)
    every = {
        "D": d, "WIDE": sizes.wide, "TALL": sizes.tall, "STAGES": gpu_mean.stages(d), "EACH": each,
        "UNIT": True, "WHOLE": True, **without,
    }  # fmt: skip
    constants = {name: value for name, value in every.items() if name in kernel.arg_names}
    types = {name: MEAN_TYPES.get(name, "*fp32") for name in kernel.arg_names}
    types |= {name: number for name in ("rows", "out") if name in types}
    options = {"num_warps": sizes.num_warps}
    return resource_usage(kernel, types, constants, options, capability, folder)


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("name", ["average", "pull"])
@pytest.mark.parametrize("d, number", [(384, "*fp32"), (2048, "*bf16"), (4096, "*fp32")])
def test_means(d: int, name: str, number: str, capability: int, tmp_path: Path):
    kernel = getattr(gpu_kernels, name)
    for each, without in ((False, PLAIN), (True, PLAIN), (True, {})):
        found = needed(kernel, d, number, each, without, capability, tmp_path)
        assert found.spilled == 0 and found.registers <= 160, (each, without)
        assert found.shared <= 34 * 1024, "six programs are to fit beside one another"
        if name == "average":  # rows are on their way while others are summed
            assert found.shared >= 2 * 4096 * int(number[-2:]) // 8


@pytest.mark.slow
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_short_and_long_rows(capability: int, tmp_path: Path):
    for d in (1, 37, 16384, 32768):
        for name in ("average", "settle", "pull"):
            kernel = getattr(gpu_kernels, name)
            found = needed(kernel, d, "*bf16", True, {}, capability, tmp_path)
            assert found.spilled <= 256 and found.shared <= 96 * 1024, (d, name)


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("size", [5, 32, 224])
def test_grids(size: int, ragged: bool, capability: int, tmp_path: Path):
    wide = min(1 << (size * size - 1).bit_length(), gpu_grid.PLACES)
    constants = {"SIZE": size, "CHANNELS": 3, "TALL": gpu_grid.PLACES // wide, "WIDE": wide}
    for kernel, more in ((gpu_kernels.cut, {"RAGGED": ragged}), (gpu_kernels.fold, {})):
        types = {name: GRID_TYPES.get(name, "i32") for name in kernel.arg_names}
        if ragged and kernel is gpu_kernels.cut:
            types["images"] = "*i64"
        its = {k: v for k, v in (constants | more).items() if k in kernel.arg_names}
        found = resource_usage(kernel, types, its, {"num_warps": 4}, capability, tmp_path)
        assert found.spilled <= 16 and found.registers <= 96 and found.shared == 0
