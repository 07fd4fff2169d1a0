"""The GPU part of the throughput benchmark on CPU tensors, under Triton's interpreter.

TRITON_INTERPRET=1 python -m pytest tests/benchmarks/batch_stages_interpreted.py
"""

from __future__ import annotations

import sys
import weakref
from contextlib import closing
from pathlib import Path

import helpers_interpreter
import pytest
import torch

from patchmill.benchmarks import throughput
from patchmill.benchmarks.lib.sample import Sample
from patchmill.benchmarks.lib.throughput import batch_stages, contenders, upper_bounds
from patchmill.kernels.views import layout, reference
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import open_source

if reason := helpers_interpreter.skip_reason():
    pytest.skip(reason, allow_module_level=True)
pytest.importorskip("nvidia.dali")
pytest.importorskip("nvidia.nvimgcodec")

CPU = torch.device("cpu")
SMALL = "moco_v2(size=16)"
SCENES = "scenes(count=3, size=40)"
BATCH = 2


def expected(images: list[bytes], recipe: Recipe, number: int) -> torch.Tensor:
    """Batch `number` of the repeated images, flat as in a batch's memory."""
    indices = [(number * BATCH + i) % len(images) for i in range(BATCH)]
    pixels = [decode(images[i]) for i in indices]
    ids = range(number * BATCH, (number + 1) * BATCH)
    rows = draw.draw(recipe, 0, 0, ids, [image.shape[:2] for image in pixels]).rows
    groups = reference.render(pixels, rows, draw.targets(recipe)).values()
    return torch.cat([group.transpose(0, 1).flatten() for group in groups])


@pytest.mark.parametrize("alone", [True, False])
def test_views_are_those_of_the_reference(alone):
    images, recipe = Sample(open_source(SCENES), 3).encoded, load_recipe(SMALL)
    arguments = (images, recipe, BATCH, CPU, torch.float32)
    if alone:
        batches = batch_stages.render_alone(*arguments)
    else:
        batches = batch_stages.decode_and_render(
            batch_stages.dali_decoder(images, 1, BATCH, CPU), *arguments
        )
    with closing(batches):
        for number in range(3):
            error = next(batches) - expected(images, recipe, number)
            assert error.numel() == layout.elements(draw.targets(recipe), BATCH)
            assert error.abs().mean() < 0.02


def test_a_complete_run(tmp_path: Path, monkeypatch, capsys):
    """The GPU run with the CPU as its device; calls of CUDA itself are replaced."""
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(throughput, "MIN_ROUNDS", 1)
    monkeypatch.setattr(throughput.Settings, "on_gpu", True)
    monkeypatch.setattr(throughput.machine, "gpu", lambda device: "no GPU")
    monkeypatch.setattr(contenders.machine, "gpu_memory_used", lambda: 1 << 30)
    for name in ("set_device", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 1 << 29)
    small = ["--data", SCENES, "--recipe", SMALL, "--batch-size", "2", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["throughput.py", *small, "--seconds", "0.01"])
    throughput.main()
    printed = capsys.readouterr().out
    others = (upper_bounds.CPU_DECODE, upper_bounds.DECODE_AND_VIEWS, upper_bounds.VIEWS_ALONE)
    for name in (*upper_bounds.GPU_DECODERS, *others):
        assert f"\n{name} " in printed and f"{name} is skipped" not in printed
    assert "bare decode is that of " in printed and "views/s" in printed
    assert "GPU memory: 1,024 MiB in use, up to 512 reserved by torch" in printed


def test_decoders_cycle_through_all_images():
    images, seen = [b"a", b"b", b"c"], list[bytes]()

    def note(encoded):
        seen.extend(bytes(one.numpy()) for one in encoded)
        return []

    with closing(batch_stages.decode_lists(note, images, BATCH)) as batches:
        for _ in range(3):
            next(batches)
    assert seen == images * 2


def test_decoded_batches_are_freed_after_rendering(monkeypatch):
    images, recipe = Sample(open_source(SCENES), 3).encoded, load_recipe(SMALL)
    decoder = batch_stages.dali_decoder(images, 1, BATCH, CPU)
    taken: list[weakref.ref] = []
    take = decoder.take

    def watched(stream):
        decoded = take(stream)
        taken.append(weakref.ref(decoded))
        return decoded

    monkeypatch.setattr(decoder, "take", watched)
    arguments = (images, recipe, BATCH, CPU, torch.float32)
    with closing(batch_stages.decode_and_render(decoder, *arguments)) as batches:
        for _ in range(2 * batch_stages.RENDER_QUEUE):
            next(batches)
        alive = [batch() is not None for batch in taken]
    assert alive == [False] * batch_stages.RENDER_QUEUE + [True] * batch_stages.RENDER_QUEUE
