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

import torch
from helpers_compile import ARCHITECTURES, resource_usage

from patchmill.kernels.matching import gpu
from patchmill.kernels.matching import gpu_kernels as kernels

MOST_SPILLED = 32  # bytes per thread: a few values that live outside the loops
MOST_SHARED = {80: 81 * 1024, 90: 113 * 1024, 100: 113 * 1024}  # fits twice
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
INPUTS = ("a", "b", "rows", "student", "teacher", "out")  # of the caller's dtype
INT64 = ("a_index", "b_index", "teacher_index", "order", "offsets")
INT32 = ("argmax_a", "argmax_b", "tile_argmax", "match_a", "match_b")
COUNTS = ("maps_a", "maps_b", "count")

# Tokens of a and b, d, type.
USUAL = [
    (196, 196, 768, torch.bfloat16),
    (36, 196, 768, torch.bfloat16),
    (196, 196, 768, torch.float32),
    (36, 196, 768, torch.float32),
]
OTHERS = [
    (196, 196, 768, torch.float16),
    (36, 36, 768, torch.float32),
    (197, 37, 384, torch.bfloat16),
    (1024, 4096, 256, torch.bfloat16),
    (1024, 1024, 1000, torch.float32),
    (50, 50, 1, torch.bfloat16),
    (65, 50, 33, torch.float32),
]


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("sizes", USUAL, ids=str)
def test_usual_sizes(sizes: Any, capability: int, tmp_path: Path):
    assert_match_fits(sizes, capability, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_other_sizes(capability: int, tmp_path: Path):
    for sizes in OTHERS:
        assert_match_fits(sizes, capability, tmp_path)


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("d", [768, 4096])
def test_other_kernels(d: int, capability: int, tmp_path: Path):
    small = {"num_warps": 4}
    for kernel, shape in (
        (kernels.inverse_norms, gpu.norm_blocks(d)),
        (kernels.reduce_tiles, {"TILES": 2, "B": 196, "BLOCK": gpu.REDUCE_BLOCK} | small),
        (kernels.top_k_loss, {"A": 36, "B": 196, "KEEP": 18, "BLOCK": gpu.TOP_K_BLOCK} | small),
        (kernels.backward_token, {"A": 36, "B": 196} | gpu.backward_blocks(d)),
    ):
        constants = {name: value for name, value in shape.items() if name.isupper()}
        options = {"num_warps": shape["num_warps"], **gpu.COMPILER}
        types = typed(kernel, torch.bfloat16)
        found = resource_usage(kernel, types, constants, options, capability, tmp_path)
        assert found.spilled == 0 and found.shared <= 16 * 1024, kernel


def assert_match_fits(sizes: Any, capability: int, folder: Path) -> None:
    tokens_a, tokens_b, d, dtype = sizes
    block = gpu.match_blocks(tokens_a, dtype)
    constants = {
        "A": tokens_a, "B": tokens_b, "D": d, "BLOCK_M": block.m, "BLOCK_N": block.n,
        "BLOCK_K": block.k, "PRECISION": gpu.PRECISION,
    }  # fmt: skip
    options = {"num_warps": block.num_warps, "num_stages": block.num_stages, **gpu.COMPILER}
    types = typed(kernels.match_tile, dtype)
    found = resource_usage(kernels.match_tile, types, constants, options, capability, folder)
    assert found.spilled <= MOST_SPILLED and found.shared <= MOST_SHARED[capability], found


def typed(kernel: Any, dtype: torch.dtype) -> dict[str, str]:
    types = {name: "*fp32" for name in kernel.arg_names}
    types |= dict.fromkeys(INT64, "*i64") | dict.fromkeys(INT32, "*i32")
    return types | dict.fromkeys(COUNTS, "i32") | dict.fromkeys(INPUTS, TYPES[dtype])
