"""Pipeline `ffcv` of a GPU, run on a CPU: Triton's interpreter runs its kernels.

TRITON_INTERPRET=1 python -m pytest tests/loaders/pipelines/ffcv_pipeline/ffcv_gpu_interpreted.py
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_beton import encode, overwrite_image
from helpers_gpu_pipelines_interpreted import LEVEL, MOST, gpu_loaders
from helpers_masked_beton import pasting, write_masked
from helpers_pipelines import make_loader, mill_threads

pytest.importorskip("ffcv")

from patchmill.loaders.pipelines.ffcv import gpu_multi_view  # isort: skip  # before FFCV
from ffcv.loader import Loader, OrderOption

from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.ffcv import ragged
from patchmill.loaders.pipelines.gpu import arena, views
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources.beton.source import Beton

COUNT = 9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """JPEGs, raw images, every kind of mask; an image that is bad, and one of another type."""
    path = write_masked(tmp_path / "masked.beton", COUNT)
    overwrite_image(path, 2 * 3, b"no picture")
    overwrite_image(path, 2 * 4, encode(0, "WEBP", quality=1))
    return path


def small(recipe: Recipe) -> Recipe:
    return replace(recipe, views=tuple(replace(v, size=4, count=1) for v in recipe.views))


def test_batches_equal_those_of_threads_on_a_gpu(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same renderer of the same pixels; images lie in many blocks, or in the device cache."""
    for module in (arena, views, ragged):
        monkeypatch.setattr(module, "BLOCK_BYTES", 12_000)
    settings: dict[str, Any] = {"recipe": small(pasting("images")), "batch_size": 5}
    theirs, ours = (
        gpu_loaders(name, tmp_path / name, monkeypatch)(
            path, drop_last=False, device_cache=1 << 15, **settings
        )
        for name in ("threads", "ffcv")
    )
    for _ in range(2):
        expected = list(theirs)  # the interpreter runs one loader at a time
        for one, other in zip(ours, expected, strict=True):
            assert torch.equal(one.ids, other.ids) and torch.equal(one.labels, other.labels)
            assert (one.rows == other.rows).all() and (one.shapes == other.shapes).all()
            for name, group in other.views.items():
                assert torch.equal(one.views[name], group)
    mine, other = ours.stats(), theirs.stats()
    assert mine.unmasked == other.unmasked > 0
    assert mine.cache.hits > 3 and mine.cache.images == other.cache.images
    assert mine.stages["decode"].items == other.stages["decode"].items
    assert mine.stages["plan"].items == other.stages["plan"].items == 2 * COUNT
    assert mine.stages["render"].crew == "gpu"
    listed = [(tmp_path / name).read_text() for name in ("ffcv", "threads")]
    assert listed[0] == listed[1] and '"id": 3' in listed[0]
    assert mill_threads() == set()


def test_images_are_where_they_are_uploaded_from(
    path: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Raw pixels and decoded JPEGs, bit for bit; what compiled code leaves is Python's work."""
    loader = gpu_loaders("ffcv", tmp_path / "gpu", monkeypatch)(path, small(pasting("grey")), 7)
    pipeline, source = loader.pipeline, Beton(path)
    job = pipeline._job(0, np.arange(COUNT))
    done, left = pipeline._decode(job, range(COUNT))
    assert left == [3, 4] and done + left != list(range(COUNT))
    for slot in done:
        height, width = job.shapes[slot].tolist()
        image = decode(source.read(slot))
        assert image.shape == (height, width, 3)
        assert (job.arena.image(tuple(job.locations[slot]), height, width) == image).all()
    blocks = sum(job.arena.used)
    assert blocks < sum(3 * job.shapes[done].astype(int).prod(1)) + 16 * COUNT + 2 * 3 * 60 * 60


@pytest.fixture
def own(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Operations for FFCV's own loader, and that loader."""
    monkeypatch.setattr(gpu_multi_view, "_checked_gpu", torch.device)
    views = gpu_multi_view.GpuMultiView(
        small(pasting("grey", "images")), source=Beton(path), device="cpu", seed=7
    )
    pipelines = {"image": views.operations, "label": None, "mask": None}
    order = {"order": OrderOption.RANDOM, "drop_last": False}
    return views, Loader(str(path), 5, num_workers=2, pipelines=pipelines, **order)


def test_ffcvs_own_loader_gives_the_same_batches(
    own: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its order and budget of pixels; an error is raised by `batch`, in the user's thread.

    The first batch is made at once, the second, whose budget is a pixel, an image at a time.
    """
    views, loader = own
    together, budgets = decoded_together(monkeypatch), chain([1 << 30], repeat(1))
    monkeypatch.setattr(PipelineConfig, "batch_pixels", property(lambda _: next(budgets)))
    theirs = make_loader(path, views.recipe, COUNT, pipeline="threads", seed=7)
    (expected,) = theirs
    slots = {id: slot for slot, id in enumerate(expected.ids.tolist())}
    seen = list[int]()
    for (made,) in loader:
        batch = views.batch(made)
        seen += batch.ids.tolist()
        at = [slots[id] for id in batch.ids.tolist()]
        assert torch.equal(batch.labels, expected.labels[at])
        assert (batch.rows == expected.rows[at]).all()
        for target in expected.targets:
            error = (batch.views[target.name] - expected.views[target.name][at]).abs()
            error *= torch.tensor(target.std)[:, None, None]
            assert error.max() <= 2 * MOST * LEVEL
    assert sorted(seen) == sorted(expected.ids.tolist())
    assert set(views.ledger._bad) == {3}
    assert together == [5, 1, 1, 1, 1]
    views._views._render = None  # not callable
    with pytest.raises(TypeError):
        for (made,) in loader:
            views.batch(made)


def decoded_together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images that have memory at a time, in each rendering from now on."""
    together, original = list[int](), views.GpuViews._render

    def render(made: Any, job: Any, *others: Any) -> None:
        together.append(len(job))
        assert sum(job.arena.used) >= 3 * job.shapes.astype(int).prod(1).sum()
        original(made, job, *others)

    monkeypatch.setattr(views.GpuViews, "_render", render)
    return together
