"""GPU renderer on a GPU: parity at full size; streams, memory and bounds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_pictures import make_image, make_mask

from patchmill.kernels import views
from patchmill.kernels.views import layout, reference
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import Target
from patchmill.loaders import presets
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted"),
]

LEVEL = 1 / 255
SHAPES = [(375, 500), (500, 333), (61, 1200), (480, 480), (33, 20), (768, 1024), (97, 101), (1, 1)]


def batch(recipe: Recipe, count: int, first: int = 0) -> tuple[list[np.ndarray], Any, Any]:
    """Images of ragged sizes, rows and targets."""
    shapes = [SHAPES[i % len(SHAPES)] for i in range(first, first + count)]
    kinds = ("photo", "noise", "photo", "stripes")
    images = [make_image(kinds[i % 4], *shape, seed=i) for i, shape in enumerate(shapes, first)]
    drawn = draw.draw(recipe, 1, 2, np.arange(first, first + count), shapes)
    return images, drawn.rows, draw.targets(recipe)


def on_gpu(images: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(image).cuda() for image in images]


def assert_alike(ours: Any, theirs: Any, targets: list[Target], mean: float, most: float) -> None:
    for its in targets:
        error = (ours[its.name].cpu().float() - theirs[its.name]).abs()
        error *= torch.tensor(its.std)[:, None, None]
        assert error.mean() <= mean * LEVEL, its
        assert error.max() <= most * LEVEL, its


# ------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("name", presets.ALL)
def test_presets_at_full_size(name: str):
    images, rows, targets = batch(presets.ALL[name](), 4)
    ours = views.render(on_gpu(images), rows, targets)
    assert_alike(ours, reference.render(images, rows, targets), targets, mean=0.1, most=3)
    assert_alike(ours, render.render(images, rows, targets), targets, mean=1, most=3)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
def test_types(dtype: torch.dtype, channels_last: bool):
    images, rows, targets = batch(presets.dino(local_size=98), 4)
    exact = views.render(on_gpu(images), rows, targets)
    found = views.render(on_gpu(images), rows, targets, dtype=dtype, channels_last=channels_last)
    for its in targets:
        if dtype == torch.uint8:
            mean, std = (torch.tensor(v, device="cuda")[:, None, None] for v in (its.mean, its.std))
            levels = 255 * (exact[its.name] * std + mean)
            assert (found[its.name] - levels).abs().max() <= 0.51
        else:
            torch.testing.assert_close(found[its.name], exact[its.name].to(dtype))


def test_many_small_patches():
    images, rows, targets = batch(presets.emp_ssl(patches=200), 8)
    ours = views.render(on_gpu(images), rows, targets)
    assert_alike(ours, reference.render(images, rows, targets), targets, mean=0.1, most=3)


@pytest.mark.parametrize("background", ["grey", "texture", "images"])
def test_copy_paste_at_full_size(background: str):
    images, rows, targets = batch(presets.dilo(paste=0.8, background=background), 8)
    masks = [make_mask("disc", 256 * h // max(h, w) or 1, 256 * w // max(h, w) or 1)
             for h, w in (image.shape[:2] for image in images)]  # fmt: skip
    masks[2:4] = [None, make_mask("noise", 300, 200)]
    extras = {"masks": masks, "backgrounds": images[::-1]}
    there = {"masks": [None if m is None else torch.from_numpy(m).cuda() for m in masks]}
    there["backgrounds"] = on_gpu(images[::-1])
    ours = views.render(on_gpu(images), rows, targets, **there)
    assert_alike(ours, reference.render(images, rows, targets, **extras), targets, 0.1, 3)
    assert_alike(ours, render.render(images, rows, targets, **extras), targets, 1, 3)
    full = [torch.full((9, 13), 255, dtype=torch.uint8, device="cuda")] * 8
    unpasted = views.render(on_gpu(images), rows, targets)["views"]
    made = views.render(on_gpu(images), rows, targets, **(there | {"masks": full}))["views"]
    assert torch.equal(made, unpasted)


# ----------------------------------------------------------------------- runs, streams, memory


def test_runs_are_bit_identical():
    images, rows, targets = batch(presets.dino(), 16)
    there = on_gpu(images)
    first = views.render(there, rows, targets, dtype=torch.bfloat16)
    for _ in range(20):
        again = views.render(there, rows, targets, dtype=torch.bfloat16)
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_images_and_tables_may_be_freed_once_the_work_is_queued():
    """10,000 batches in a row without waiting: images are poisoned and freed, rows overwritten."""
    recipe = presets.dino(2, global_size=40, local_size=24)
    targets = draw.targets(recipe)
    batches = []
    for first in range(16):
        images, rows, _ = batch(recipe, 1 + first % 5, first)
        there = on_gpu(images)
        batches.append((there, rows, views.render(there, rows, targets)))
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    for i in np.random.default_rng(0).integers(0, len(batches), 10_000):
        pristine, rows, expected = batches[i]
        images, passing = [image.clone() for image in pristine], rows.copy()
        found = views.render(images, passing, targets)
        for image in images:
            image.fill_(i % 256)
        passing["box_h"], passing["full_h"] = 1, 7
        del images, passing
        for name in expected:
            wrong += (found[name] != expected[name]).sum()
    assert wrong.item() == 0


def test_a_busy_default_stream_does_not_block():
    images, rows, targets = batch(presets.dino(), 8)
    there, side = on_gpu(images), torch.cuda.Stream()
    expected = views.render(there, rows, targets)
    views.render(there, rows, targets, stream=side)  # compiles and pins memory once
    torch.cuda.synchronize()
    torch.cuda._sleep(4_000_000_000)
    busy = torch.cuda.Event()
    busy.record()
    found = views.render(there, rows, targets, stream=side)
    side.synchronize()
    assert not busy.query(), "it waited for the default stream, or the GPU is very fast"
    torch.cuda.synchronize()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_memory_does_not_grow():
    """Over 1000 batches, each of which needs different passes for different views."""
    recipe = presets.dino()
    images, _, targets = batch(recipe, 8)
    there, shapes = on_gpu(images), [image.shape[:2] for image in images]
    flat = torch.empty(layout.elements(targets, 8), dtype=torch.bfloat16, device="cuda")
    reserved = []
    for step in range(1000):
        rows = draw.draw(recipe, 0, step, np.arange(8), shapes).rows
        views.render(there, rows, targets, out=flat)
        if step in (100, 999):
            torch.cuda.synchronize()
            reserved.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert reserved[0] == reserved[1]


def test_the_second_gpu():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    images, rows, targets = batch(presets.dino(), 2)
    first = views.render(on_gpu(images), rows, targets)
    second = views.render([image.to("cuda:1") for image in on_gpu(images)], rows, targets)
    assert all(torch.equal(first[name].cpu(), second[name].cpu()) for name in first)


def test_no_access_is_out_of_bounds():
    if not shutil.which("compute-sanitizer"):
        pytest.skip("needs compute-sanitizer")
    program = Path(__file__).with_name("helpers_sanitized.py")
    command = ["compute-sanitizer", "--error-exitcode", "9", sys.executable, str(program)]
    run = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
