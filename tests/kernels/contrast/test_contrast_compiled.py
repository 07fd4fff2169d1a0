"""Compile the kernels for A100 and H100 without a GPU; bound registers, spills, shared memory."""

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

MOST_SPILLED = 128  # bytes per thread: under 2 % of what a loop does, and with Triton 3.4 only
MOST_SHARED = {80: 81 * 1024, 90: 160 * 1024, 100: 160 * 1024}  # fits twice on an A100
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
INPUTS = ("queries", "keys", "batch_keys", "rows", "columns", "others")  # of the caller's dtype
SUMS = (
    "row_maxima", "row_sums", "weighted_keys", "losses", "lse", "grad_queries", "row_lse",
    "column_lse", "partial_sums",
)  # fmt: skip
FLOATS = ("scale", "grad_scale", "positive_weight")
FUSED: dict[str, Any] = {"EXCLUDE_SELF": False, "WITH_GRAD": True}
LOSS_ONLY: dict[str, Any] = {"EXCLUDE_SELF": True, "WITH_GRAD": False}
BOTH: dict[str, Any] = {"EXCLUDE_SELF": True, "ROW_QUERIES": True, "COLUMN_QUERIES": True}
KEYS: dict[str, Any] = {
    "EXCLUDE_SELF": False, "ROW_QUERIES": False, "COLUMN_QUERIES": True, "row_lse": None,
}  # fmt: skip

# Kernel, constants, dtype, d, rows.
USUAL = [
    (kernels.forward_split, FUSED, torch.bfloat16, 128, 256),
    (kernels.forward_split, LOSS_ONLY, torch.bfloat16, 128, 8192),
    (kernels.forward_split, FUSED, torch.float32, 128, 256),
    (kernels.backward_split, BOTH, torch.bfloat16, 128, 8192),
    (kernels.backward_split, BOTH, torch.float32, 128, 8192),
]
OTHERS = [
    (kernels.forward_split, FUSED, torch.bfloat16, 1, 64),
    (kernels.forward_split, FUSED, torch.float16, 100, 4096),
    (kernels.forward_split, FUSED, torch.bfloat16, 256, 4096),
    (kernels.forward_split, FUSED, torch.float32, 256, 4096),
    (kernels.forward_split, LOSS_ONLY, torch.bfloat16, 4096, 100),
    (kernels.backward_split, KEYS, torch.bfloat16, 128, 65536),
    (kernels.backward_split, BOTH, torch.bfloat16, 256, 4096),
    (kernels.backward_split, BOTH, torch.bfloat16, 512, 4096),
    (kernels.backward_split, BOTH, torch.float32, 4096, 100),
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
def test_reductions(d: int, splits: int, capability: int, tmp_path: Path):
    block = gpu.row_block(d, splits)
    shared = {"D": d, "BLOCK_D": block.d, "UNROLL": block.unroll, "VIEWS": 2}
    views: dict[str, Any] = {"EXCLUDE_SELF": True, "ADD_POSITIVE": False}
    queue: dict[str, Any] = {"EXCLUDE_SELF": False, "ADD_POSITIVE": True, "grad_loss": None}
    options = {"num_warps": block.num_warps, **gpu.COMPILER}
    for kernel, constants in (
        (kernels.reduce_splits, shared | views | {"WITH_GRAD": True, "BLOCK_SPLITS": 512}),
        (kernels.reduce_gradient, shared | views | {"SUBTRACT_POSITIVES": True}),
        (kernels.reduce_gradient, shared | queue | {"SUBTRACT_POSITIVES": True}),
    ):
        types = typed(kernel, torch.bfloat16) | {"out": "*bf16"}
        found = resource_usage(kernel, types, constants, options, capability, tmp_path)
        assert found.spilled <= MOST_SPILLED and found.shared <= 16 * 1024


@pytest.mark.parametrize("d", [128, 300])
def test_launches_compile_with_the_arguments_they_get(d: int, monkeypatch: pytest.MonkeyPatch):
    """Everything up to the GPU, with the host's arguments and types."""
    seen = set()
    run = JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        seen.add(kernel.fn.__name__)
        compiled = run(kernel, *args, grid=grid, warmup=True, **options)
        types = {it: of for it, of in compiled.src.signature.items() if of != "constexpr"}
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
            queries, batch_keys, queue = arguments(pairing, d, keys, torch.bfloat16)
            _, lse, _ = gpu.forward(queries, batch_keys, queue, 0.2, pairing, True)
            gpu.backward_keys(torch.ones(()), queries, batch_keys, lse, 0.2, pairing, True)
            gpu.backward_keys(torch.ones(()), queries, batch_keys, lse, 0.2, pairing, False)
        gpu.backward_keys(torch.ones(()), queries, None, lse, 0.2, Pairing(VIEWS, 2, 3, 3, 0), True)
    finally:
        with contextlib.suppress(RuntimeError):  # if there is no driver to return to
            driver.reset_active()
    assert seen == {"forward_split", "reduce_splits", "backward_split", "reduce_gradient"}


class NoGPU:
    """Just enough of a Triton driver to compile a launch."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def assert_fits(variant: Any, capability: int, folder: Path) -> None:
    kernel, flags, dtype, d, rows = variant
    block = gpu.blocks(d, rows, dtype)
    constants = flags | {
        "D": d, "BLOCK_K": block.k, "BLOCK_D": block.d, "BLOCK_M": block.m, "BLOCK_N": block.n,
        "PRECISION": gpu.PRECISION,
    }  # fmt: skip
    options = {"num_warps": block.num_warps, "num_stages": block.num_stages, **gpu.COMPILER}
    found = resource_usage(kernel, typed(kernel, dtype), constants, options, capability, folder)
    assert found.spilled <= MOST_SPILLED, variant
    assert found.shared <= MOST_SHARED[capability], variant


def typed(kernel: Any, dtype: torch.dtype) -> dict[str, str]:
    types = {name: "i32" for name in kernel.arg_names}
    types |= dict.fromkeys(FLOATS, "fp32") | dict.fromkeys(SUMS, "*fp32")
    types |= dict.fromkeys(INPUTS, TYPES[dtype])
    return types | {"out": "*fp32", "grad_loss": "*fp32"}
