"""What is measured on a GPU, on CPU tensors: its kernels are run by Triton's interpreter.

TRITON_INTERPRET=1 python -m pytest tests/benchmarks/batchwise_interpreted.py
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
from patchmill.benchmarks.lib import batchwise, contenders, lineup
from patchmill.benchmarks.lib.sample import Sample
from patchmill.kernels.views import layout, reference
from patchmill.loaders import recipe
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.plan import draw
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


def expected(images: list[bytes], law: recipe.Recipe, number: int) -> torch.Tensor:
    """Batch `number` of the images over and over, flat as in a batch's memory."""
    places = [(number * BATCH + i) % len(images) for i in range(BATCH)]
    pixels = [decode(images[i]) for i in places]
    ids = range(number * BATCH, (number + 1) * BATCH)
    rows = draw.draw(law, 0, 0, ids, [image.shape[:2] for image in pixels]).rows
    groups = reference.render(pixels, rows, draw.targets(law)).values()
    return torch.cat([group.transpose(0, 1).flatten() for group in groups])


@pytest.mark.parametrize("alone", [True, False])
def test_views_are_made_for_real(alone):
    images, law = Sample(open_source(SCENES), 3).encoded, load_recipe(SMALL)
    asked = (images, law, BATCH, CPU, torch.float32)
    if alone:
        batches = batchwise.views_alone(*asked)
    else:
        batches = batchwise.decode_and_views(batchwise.dali(images, 1, BATCH, CPU), *asked)
    with closing(batches):
        for number in range(3):
            error = next(batches) - expected(images, law, number)
            assert error.numel() == layout.elements(draw.targets(law), BATCH)
            assert error.abs().mean() < 0.02


def test_a_whole_run(tmp_path: Path, monkeypatch, capsys):
    """As on a GPU, with the CPU as the device: all but what asks CUDA for something."""
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(throughput, "FEWEST_ROUNDS", 1)
    monkeypatch.setattr(throughput.Settings, "on_gpu", True)
    monkeypatch.setattr(throughput.machine, "gpu", lambda device: "no GPU")
    monkeypatch.setattr(contenders.machine, "gpu_taken", lambda: 1 << 30)
    for name in ("set_device", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 1 << 29)
    small = ["--data", SCENES, "--recipe", SMALL, "--batch-size", "2", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["throughput.py", *small, "--seconds", "0.01"])
    throughput.main()
    printed = capsys.readouterr().out
    for name in (*lineup.GPU_DECODERS, lineup.BY_CPU, lineup.DECODE_AND_VIEWS, lineup.VIEWS):
        assert f"\n{name} " in printed and f"{name} is left out" not in printed
    assert "bare decode is that of " in printed and "views/s" in printed
    assert "all together 1,024 MiB, at most 512 of it by torch" in printed


def test_decoders_get_every_image_in_turn():
    images, seen = [b"a", b"b", b"c"], list[bytes]()

    def note(encoded):
        seen.extend(bytes(one.numpy()) for one in encoded)
        return []

    with closing(batchwise.by_list(note, images, BATCH)) as batches:
        for _ in range(3):
            next(batches)
    assert seen == images * 2


def test_decoded_batches_live_until_they_are_rendered_and_not_for_ever(monkeypatch):
    images, law = Sample(open_source(SCENES), 3).encoded, load_recipe(SMALL)
    decoder = batchwise.dali(images, 1, BATCH, CPU)
    taken: list[weakref.ref] = []
    take = decoder.take

    def watched(stream):
        decoded = take(stream)
        taken.append(weakref.ref(decoded))
        return decoded

    monkeypatch.setattr(decoder, "take", watched)
    asked = (images, law, BATCH, CPU, torch.float32)
    with closing(batchwise.decode_and_views(decoder, *asked)) as batches:
        for _ in range(2 * batchwise.QUEUED):
            next(batches)
        alive = [batch() is not None for batch in taken]
    assert alive == [False] * batchwise.QUEUED + [True] * batchwise.QUEUED
