"""The kernels of bags become machine code for an A100 and an H100 without a GPU, and fit.

What counts is that enough of them run at once on a multiprocessor to hide what each waits for.
"""

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

from patchmill.kernels.bags import LONGEST, gpu
from patchmill.kernels.bags import gpu_kernels as kernels

SHARED = {80: 164 * 1024, 90: 228 * 1024}  # bytes of a multiprocessor
REGISTERS = 65536  # of a multiprocessor
LEAST_WARPS = 16
NUMBERS = ("parts", "kept", "losses", "gradient")

# Kernel, views, d, type.
VARIANTS = [
    (kernels.whole, 2, 128, "bf16"),
    (kernels.whole, 20, 1024, "fp32"),
    (kernels.gather, 200, 1024, "bf16"),
    (kernels.gather, 200, 1024, "fp32"),
    (kernels.gather, 200, 4096, "fp16"),
    (kernels.settle, 200, 1024, "bf16"),
    (kernels.spread, 2, 128, "fp32"),
    (kernels.spread, 8, 3000, "fp32"),
    (kernels.spread, 200, 1024, "bf16"),
    (kernels.spread, 200, 4096, "fp32"),
]


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda it: f"{it[0].__name__}-{it[2]}-{it[3]}")
def test_kernels_fit(variant: Any, capability: int, tmp_path: Path):
    kernel, views, d, number = variant
    found, num_warps = needs_of(kernel, views, d, number, capability, tmp_path)
    programs = SHARED[capability] // (found.shared + 1024)
    programs = min(programs, REGISTERS // (found.registers * 32 * num_warps), 32)
    assert found.spilled == 0
    assert programs * num_warps >= LEAST_WARPS


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("kernel", [kernels.whole, kernels.spread])
def test_the_longest_rows_fit(kernel: Any, capability: int, tmp_path: Path):
    found, num_warps = needs_of(kernel, 8, LONGEST, "fp32", capability, tmp_path)
    assert found.spilled <= 64
    assert found.shared <= 160 * 1024
    assert found.registers * 32 * num_warps <= REGISTERS


def needs_of(
    kernel: Any, views: int, d: int, number: str, capability: int, folder: Path
) -> tuple[Any, int]:
    wide, rows, num_warps = gpu.blocks(views, d)
    kept = views > 8
    constants = {"D": d, "WIDE": wide, "ROWS": rows, "KEEP": kept, "KEPT": kept}
    constants = {name: it for name, it in constants.items() if name in kernel.arg_names}
    types = {name: "i32" for name in kernel.arg_names} | {"scale": "fp32"}
    types |= dict.fromkeys(NUMBERS, "*fp32") | dict.fromkeys(("z", "out"), f"*{number}")
    return resource_usage(
        kernel, types, constants, {"num_warps": num_warps, **gpu.COMPILER}, capability, folder
    ), num_warps
