"""GPU renderer kernels compiled for A100 and H100 without a GPU: registers, spills, shared memory.

Kernels must use no more registers than `gpu_launch` allows, for sufficient occupancy, and spill
next to nothing for it: a few values that live outside the loops.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
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
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import ON_GREY, ON_IMAGE, ON_TEXTURE
from patchmill.kernels.views.gpu import copy
from patchmill.kernels.views.gpu import launch as gpu_launch
from patchmill.kernels.views.gpu.copy import copy_parts
from patchmill.kernels.views.gpu.launch import COMPILER, blur, contrast, resize, weigh
from patchmill.kernels.views.gpu.tables import Images, Pass, Variant
from patchmill.loaders import presets
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe

MOST_SPILLED = 288  # bytes per thread: by Triton 3.9 for a B200, elsewhere up to 224
GREY, IMAGES = 1 << ON_GREY, 1 << ON_IMAGE  # BACKGROUNDS
ALL = GREY | 1 << ON_TEXTURE | IMAGES
TYPES = {
    "images": "*i64", "paste_table": "*i64", "rows": "*i32", "slots": "*i64", "groups": "*i32",
    "entries": "*i32", "planes": "*fp16", "luma_sums": "*fp32", "filter_table": "*i32",
    "weights": "*fp16",
}  # fmt: skip

# Kernel, tile, bicubic, aligned, channels last, dtype of the batch; BACKGROUNDS of `resize`.
USUAL = [
    (weigh, 32, True, True, False, "bf16"),
    (resize, 32, True, True, False, "bf16"),
    (resize, 32, False, False, True, "fp32"),
    (resize, 16, True, True, True, "u8"),
    (resize, 32, False, True, False, "bf16", GREY),
    (contrast, 32, True, True, False, "bf16"),
    (contrast, 32, True, False, True, "fp16"),
    (blur, 32, True, True, False, "bf16"),
    (blur, 32, True, False, True, "fp32"),
    (blur, 16, True, True, True, "fp16"),
]
EITHER = (True, False)
OTHERS = {
    *itertools.product([resize], [32], [True], EITHER, EITHER, ["bf16"]),
    *itertools.product([resize], [16], [False], EITHER, EITHER, ["bf16"]),
    *itertools.product([resize], [16, 32], [False], EITHER, EITHER, ["bf16"], [GREY, ALL]),
    (resize, 32, False, False, True, "fp32", GREY),
    (resize, 32, False, False, True, "fp32", ALL),
    (resize, 32, True, True, False, "bf16", IMAGES),
    *itertools.product([contrast, blur], [32], [True], EITHER, EITHER, ["bf16"]),
} - {*USUAL}


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("variant", USUAL, ids=lambda variant: variant[0].__name__)
def test_usual_variants(variant: Any, capability: int, tmp_path: Path):
    assert_fits(variant, capability, tmp_path)


@pytest.mark.parametrize("capability", ARCHITECTURES)
def test_copies_of_images(capability: int, tmp_path: Path):
    constants = {"PART": copy.PART}
    types = {"parts": "*i64"}
    usage = resource_usage(copy_parts, types, constants, copy.COMPILER, capability, tmp_path)
    assert usage.registers <= 128
    assert not usage.spilled


@pytest.mark.slow
def test_other_variants(tmp_path: Path):
    for variant, capability in zip(
        sorted(OTHERS, key=str), itertools.cycle(ARCHITECTURES), strict=False
    ):
        assert_fits(variant, capability, tmp_path)


def test_launches_are_what_is_compiled_here():
    """Everything up to the GPU: arguments, their types and the compiler options."""
    image = torch.zeros(60, 50, 3, dtype=torch.uint8)
    plain, masked = Images.of([image]), Images.of([image], [image[..., 0].contiguous()])
    driver.set_active(NoGPU())
    try:
        for launch in [
            *launches(presets.dino(), plain, 0),
            *launches(presets.dilo(paste=1), masked, GREY),
            *launches(presets.dilo(paste=1), plain, 0),
        ]:
            compiled = launch.kernel.warmup(grid=(launch.blocks,), **launch.arguments)
            types = {name: of for name, of in compiled.src.signature.items() if of != "constexpr"}
            expected = {name: (TYPES | {"out": "*bf16"}).get(name, "i32") for name in types}
            assert types == expected
            assert compiled.metadata.maxnreg == launch.arguments["maxnreg"] <= COMPILER["maxnreg"]
            assert compiled.metadata.enable_fp_fusion
    finally:
        with contextlib.suppress(RuntimeError):  # if there is no driver to return to
            driver.reset_active()


def launches(recipe: Recipe, images: Images, backgrounds: int) -> list[gpu_launch.Launch]:
    rows, targets = draw.draw(recipe, 0, 2, [5], [(60, 50)]).rows, draw.targets(recipe)
    out = torch.empty(layout.elements(targets, 1), dtype=torch.bfloat16)
    plan = gpu_launch.launches(out, images, rows, targets)
    compiled = [launch.arguments["BACKGROUNDS"] for launch in plan if launch.kernel is resize]
    assert compiled == [backgrounds]
    return plan


class NoGPU:
    """Stub of the driver methods that a launch calls before the kernel is compiled."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def assert_fits(variant: Any, capability: int, folder: Path) -> None:
    kernel, tile, bicubic, aligned, channels_last, dtype, *rest = variant
    empty, backgrounds = Pass(*[None] * 3), rest[0] if rest else 0  # type: ignore[arg-type]
    compiled = Variant(tile, bicubic, aligned, 1, *[empty] * 4, backgrounds)
    constants = gpu_launch.constants(kernel, compiled, channels_last)
    options = {name: constants.pop(name) for name in (*COMPILER, "num_warps")}
    types = {name: TYPES.get(name, "i32") for name in kernel.arg_names} | {"out": f"*{dtype}"}
    usage = resource_usage(kernel, types, constants, options, capability, folder)
    assert usage.registers <= options["maxnreg"], variant
    assert usage.spilled <= MOST_SPILLED, variant
    assert usage.shared <= 48 * 1024, variant
