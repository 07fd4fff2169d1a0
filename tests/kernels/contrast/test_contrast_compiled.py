"""The kernels become machine code for an A100 and an H100 without a GPU, and fit."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

if not importlib.util.find_spec("triton"):
    pytest.skip("needs Triton", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted in this process", allow_module_level=True)

import torch
from helpers_compile import ARCHITECTURES, resource_usage
from helpers_contrast import arguments
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from patchmill.kernels.contrast import gpu
from patchmill.kernels.contrast import gpu_kernels as kernels
from patchmill.kernels.contrast.pairing import BATCH, QUEUE, VIEWS, Pairing

MOST_SPILLED = 32  # bytes a thread: a few values that live outside of the loops
MOST_SHARED = {80: 96 * 1024, 90: 160 * 1024}  # so that what an A100 has fits twice
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
GIVEN = ("queries", "keys", "companions", "rows", "columns", "peers")  # of the caller's type
SUMS = ("peaks", "sums", "means", "losses", "lse", "slope", "row_lse", "column_lse", "pulled")
NUMBERS = ("scale", "gain", "pay")
WHOLE: dict[str, Any] = {"ALONE": False, "MEAN": True}
PARTS: dict[str, Any] = {"ALONE": True, "MEAN": False}
BOTH: dict[str, Any] = {"ALONE": True, "BY_ROW": True, "BY_COLUMN": True}
KEYS: dict[str, Any] = {"ALONE": False, "BY_ROW": False, "BY_COLUMN": True, "row_lse": None}

# Kernel, what it is asked, type, d, rows.
USUAL = [
    (kernels.gather, WHOLE, torch.bfloat16, 128, 256),
    (kernels.gather, PARTS, torch.bfloat16, 128, 8192),
    (kernels.gather, WHOLE, torch.float32, 128, 256),
    (kernels.pull, BOTH, torch.bfloat16, 128, 8192),
    (kernels.pull, BOTH, torch.float32, 128, 8192),
]
OTHERS = [
    (kernels.gather, WHOLE, torch.bfloat16, 1, 64),
    (kernels.gather, WHOLE, torch.float16, 100, 4096),
    (kernels.gather, WHOLE, torch.bfloat16, 256, 4096),
    (kernels.gather, WHOLE, torch.float32, 256, 4096),
    (kernels.gather, PARTS, torch.bfloat16, 4096, 100),
    (kernels.pull, KEYS, torch.bfloat16, 128, 65536),
    (kernels.pull, BOTH, torch.bfloat16, 256, 4096),
    (kernels.pull, BOTH, torch.bfloat16, 512, 4096),
    (kernels.pull, BOTH, torch.float32, 4096, 100),
]


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("variant", USUAL, ids=lambda it: f"{it[0].__name__} {it[2]}")
def test_usual_variants(variant: Any, capability: int, tmp_path: Path):
    assert_fits(variant, capability, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_other_variants(capability: int, tmp_path: Path):
    for variant in OTHERS:
        assert_fits(variant, capability, tmp_path)


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize(("d", "splits"), [(128, 264), (4096, 1)])
def test_what_puts_a_row_together(d: int, splits: int, capability: int, tmp_path: Path):
    block = gpu.row_block(d, splits)
    shared = {"D": d, "WIDE": block.wide, "BUNCH": block.bunch, "VIEWS": 2}
    asked: dict[str, Any] = {"ALONE": True, "OWN": False, "MEAN": True, "SPLITS": 512}
    options = {"num_warps": block.num_warps, **gpu.COMPILER}
    for kernel, constants in (
        (kernels.settle, shared | asked),
        (kernels.finish, shared | {"ALONE": True, "OWN": False, "PEERS": True}),
        (kernels.finish, shared | {"ALONE": False, "OWN": True, "PEERS": True, "gradient": None}),
    ):
        types = typed(kernel, torch.bfloat16) | {"out": "*bf16"}
        found = resource_usage(kernel, types, constants, options, capability, tmp_path)
        assert found.spilled <= MOST_SPILLED and found.shared <= 16 * 1024


@pytest.mark.parametrize("d", [128, 300])
def test_launches_compile_as_they_are_called(d: int, monkeypatch: pytest.MonkeyPatch):
    """Everything up to the GPU, with arguments and types as the host gives them."""
    seen = set()
    run = JITFunction.run

    def compile_only(kernel: Any, *given: Any, grid: Any, warmup: bool, **options: Any) -> None:
        seen.add(kernel.fn.__name__)
        made = run(kernel, *given, grid=grid, warmup=True, **options)
        types = {it: of for it, of in made.src.signature.items() if of != "constexpr"}
        usual = typed(kernel, torch.bfloat16)
        assert {it: of for it, of in types.items() if it != "out"}.items() <= usual.items()

    monkeypatch.setattr(JITFunction, "run", compile_only)
    driver.set_active(NoGPU())
    try:
        for pairing, keys in (
            (Pairing(QUEUE, 1, 6, 6, 0), 40),
            (Pairing(BATCH, 1, 6, 6, 0), 40),
            (Pairing(VIEWS, 2, 3, 7, 1), 0),
        ):
            queries, companions, queue = arguments(pairing, d, keys, torch.bfloat16)
            _, lse, _ = gpu.forward(queries, companions, queue, 0.2, pairing, True)
            gpu.pulled(torch.ones(()), queries, companions, lse, 0.2, pairing, True)
            gpu.pulled(torch.ones(()), queries, companions, lse, 0.2, pairing, False)
        gpu.pulled(torch.ones(()), queries, None, lse, 0.2, Pairing(VIEWS, 2, 3, 3, 0), True)
    finally:
        with contextlib.suppress(RuntimeError):  # where there is no driver to return to
            driver.reset_active()
    assert seen == {"gather", "settle", "pull", "finish"}


class NoGPU:
    """As much of a driver as launching asks for before there is anything to launch."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def assert_fits(variant: Any, capability: int, folder: Path) -> None:
    kernel, asked, dtype, d, rows = variant
    block = gpu.blocks(d, rows, dtype)
    constants = asked | {
        "D": d, "DEEP": block.deep, "WIDE": block.wide, "ROWS": block.rows,
        "COLUMNS": block.columns, "PRECISION": gpu.PRECISION,
    }  # fmt: skip
    options = {"num_warps": block.num_warps, "num_stages": block.num_stages, **gpu.COMPILER}
    found = resource_usage(kernel, typed(kernel, dtype), constants, options, capability, folder)
    assert found.spilled <= MOST_SPILLED, variant
    assert found.shared <= MOST_SHARED[capability], variant


def typed(kernel: Any, dtype: torch.dtype) -> dict[str, str]:
    types = {name: "i32" for name in kernel.arg_names}
    types |= dict.fromkeys(NUMBERS, "fp32") | dict.fromkeys(SUMS, "*fp32")
    types |= dict.fromkeys(GIVEN, TYPES[dtype])
    return types | {"out": "*fp32", "gradient": "*fp32"}
