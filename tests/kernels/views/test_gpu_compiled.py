"""The GPU renderer's kernels become machine code for an A100 and an H100 without a GPU, and fit.

What counts is that they use no more registers than `gpu_launch` allows, so that enough warps run at
once, and spill next to nothing for it: a few values that live outside of the loops.
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
from helpers_compile import ARCHITECTURES, needs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import ON_GREY, ON_IMAGE, ON_TEXTURE
from patchmill.kernels.views.gpu import launch as gpu_launch
from patchmill.kernels.views.gpu.launch import COMPILER, blur, contrast, resize
from patchmill.kernels.views.gpu.tables import Images, Kind, Work
from patchmill.loaders import presets
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe

MOST_SPILLED = 192  # bytes a thread
GREY, IMAGES = 1 << ON_GREY, 1 << ON_IMAGE  # pastes
EVERY = GREY | 1 << ON_TEXTURE | IMAGES
TYPES = {
    "images": "*i64", "pasted": "*i64", "rows": "*i32", "slots": "*i64", "groups": "*i32",
    "listed": "*i32", "planes": "*fp16", "sums": "*fp32",
}  # fmt: skip

# Kernel, tile, bicubic, even, channels last, type of the batch; for the resize also its pastes.
USUAL = [
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
    *itertools.product([resize], [32], EITHER, EITHER, EITHER, ["bf16"]),
    *itertools.product([resize], [16], [False], EITHER, EITHER, ["bf16"]),
    *itertools.product([resize], [16, 32], [False], EITHER, EITHER, ["bf16"], [GREY, EVERY]),
    (resize, 32, False, False, True, "fp32", GREY),
    (resize, 32, False, False, True, "fp32", EVERY),
    (resize, 32, True, True, False, "bf16", IMAGES),
    *itertools.product([contrast, blur], [32], [True], EITHER, EITHER, ["bf16"]),
} - {*USUAL}


@pytest.mark.parametrize("capability", ARCHITECTURES)
@pytest.mark.parametrize("variant", USUAL, ids=lambda variant: variant[0].__name__)
def test_usual_variants(variant: Any, capability: int, tmp_path: Path):
    assert_fits(variant, capability, tmp_path)


@pytest.mark.slow
def test_other_variants(tmp_path: Path):
    for variant, capability in zip(
        sorted(OTHERS, key=str), itertools.cycle(ARCHITECTURES), strict=False
    ):
        assert_fits(variant, capability, tmp_path)


def test_launches_are_what_is_compiled_here():
    """Everything up to the GPU: arguments, their types, and what the compiler is told of them."""
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
            expected = {name: TYPES.get(name, "i32") for name in types} | {"out": "*bf16"}
            assert types == expected
            assert compiled.metadata.maxnreg == COMPILER["maxnreg"]
            assert compiled.metadata.enable_fp_fusion
    finally:
        with contextlib.suppress(RuntimeError):  # where there is no driver to return to
            driver.reset_active()


def launches(recipe: Recipe, images: Images, pastes: int) -> list[gpu_launch.Launch]:
    rows, targets = draw.draw(recipe, 0, 2, [5], [(60, 50)]).rows, draw.targets(recipe)
    out = torch.empty(layout.elements(targets, 1), dtype=torch.bfloat16)
    found = gpu_launch.launches(out, images, rows, targets)
    assert [it.arguments["PASTES"] for it in found if it.kernel is resize] == [pastes]
    return found


class NoGPU:
    """As much of a driver as launching asks for before there is anything to launch."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def assert_fits(variant: Any, capability: int, folder: Path) -> None:
    kernel, tile, bicubic, even, channels_last, number, *rest = variant
    none, pastes = Work(*[None] * 3), rest[0] if rest else 0  # type: ignore[arg-type]
    kind = Kind(tile, bicubic, even, 1, none, none, none, pastes)
    constants = gpu_launch.constants(kernel, kind, channels_last)
    options = {name: constants.pop(name) for name in (*COMPILER, "num_warps")}
    types = {name: TYPES.get(name, "i32") for name in kernel.arg_names} | {"out": f"*{number}"}
    found = needs(kernel, types, constants, options, capability, folder)
    assert found.registers <= COMPILER["maxnreg"], variant
    assert found.spilled <= MOST_SPILLED, variant
    assert found.shared <= 48 * 1024, variant
