"""The device cache in the pipelines of a GPU, run on a CPU by Triton's interpreter.

    TRITON_INTERPRET=1 python -m pytest tests/loaders/pipelines/gpu/device_cache_interpreted.py

Everything but streams and events is as on a GPU.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_gpu_pipelines_interpreted import DOT, views_of
from helpers_odd_images import jpeg, write_odd
from helpers_pipelines import Masked, Pictures, make_loader, pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.kernels.views.gpu import render
from patchmill.kernels.views.gpu.tables import ImagePointers
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.decoded.images import PLACE, DecodedImages
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.pipelines.gpu import device_cache
from patchmill.loaders.pipelines.gpu.device_cache import DeviceCache
from patchmill.loaders.pipelines.worker import Worker
from patchmill.loaders.recipe import CopyPaste, Recipe

CPU = torch.device("cpu")
PLENTY = 1 << 20


class Counted(Pictures):
    """Pictures that remember which of them were read."""

    def __init__(self, count: int) -> None:
        super().__init__(count, self._note)
        self.reads: list[int] = []

    def _note(self, index: int) -> None:
        self.reads.append(index)


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No views: rendering them is what takes the interpreter so long."""
    monkeypatch.setattr(render, "render_into", lambda *_: None)


def cache_of(loader: Any) -> DeviceCache:
    return views_of(loader).cache


def epoch(loader: Any) -> list[Any]:
    """Copies of an epoch's batches."""
    return [
        (batch.ids, batch.rows, batch.shapes, {n: v.clone() for n, v in batch.views.items()})
        for batch in loader
    ]


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one[0], other[0])
        assert (one[1] == other[1]).all()
        assert (one[2] == other[2]).all()
        assert all(torch.equal(views, other[3][name]) for name, views in one[3].items())


def assert_holds(cache: DeviceCache, id: int, image: np.ndarray) -> None:
    """The cache has the image of a sample, in memory of its own."""
    address, height, width = cache._places[id].tolist()
    assert (height, width) == image.shape[:2]
    assert not address % 16
    for block in cache._blocks:
        start = address - block.data_ptr()
        if 0 <= start <= len(block) - image.size:
            found = block[start : start + image.size].numpy()
            assert (found == image.reshape(-1)).all(), id
            return
    raise AssertionError(f"sample {id} lies outside of the cache's blocks")


# ------------------------------------------------------------------------------------- in pipelines


@pytest.mark.parametrize("limit", [PLENTY, 6000])
def test_batches_are_those_without_a_cache_and_images_are_read_once(
    on_gpu: Callable[..., Any], limit: int
) -> None:
    source = Counted(5)
    ours, theirs = (
        on_gpu(data, DOT, 3, drop_last=False, device_cache=size)
        for data, size in ((source, limit), (5, None))
    )
    for _ in range(2):
        assert_same(epoch(ours), epoch(theirs))
    cached = np.flatnonzero(cache_of(ours)._places["height"]).tolist()
    assert (len(cached) == 5) == (limit == PLENTY)
    assert 0 < len(cached) == cache_of(ours).images
    assert cache_of(ours).bytes == sum(pixels(id).size for id in cached) <= limit
    for id in range(5):
        assert source.reads.count(id) == (1 if id in cached else 2)


@pytest.mark.usefixtures("unrendered")
def test_a_batch_that_is_cached_as_a_whole_is_planned_in_one_call(
    on_gpu: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, sizes, original = on_gpu(12, DOT, 6, device_cache=PLENTY), list[int](), Worker.plan

    def plan(worker: Worker, job: Any, slots: Any, *rest: Any) -> None:
        sizes.append(len(slots))
        original(worker, job, slots, *rest)

    epoch(loader)
    monkeypatch.setattr(Worker, "plan", plan)
    epoch(loader)
    assert sizes == [6, 6]
    stages = loader.stats().stages
    assert stages["read"].items == 12
    assert stages["plan"].items == stages["render"].items == 24


def test_a_store_in_ram_serves_a_gpu_too(on_gpu: Callable[..., Any], tmp_path: Path) -> None:
    """Images that another loader decoded are copied into the arena."""
    cache = f"disk:{tmp_path}/store:1MB"
    made = epoch(make_loader(5, DOT, 5, cache=cache))
    ours, theirs = on_gpu(5, DOT, 5, cache=cache), on_gpu(5, DOT, 5)
    for _ in range(2):
        assert_same(epoch(ours), epoch(theirs))
    assert ours.stats().cache.hits == 10
    assert ours.stats().stages["decode"].items == 0
    assert len(made) == 1


class Raw(Pictures):
    """Pictures whose pixels the source holds, but for every third."""

    def decoded_images(self) -> DecodedImages:
        places, held = np.zeros(len(self), PLACE), list[np.ndarray]()
        for id in range(len(self)):
            if id % 3:
                height, width, _ = pixels(id).shape
                places[id] = sum(image.size for image in held), height, width
                held.append(pixels(id).reshape(-1))
        return DecodedImages(np.concatenate(held), places)


@pytest.mark.parametrize("limit", [PLENTY, None])
def test_raw_images_are_uploaded_as_they_are(on_gpu: Callable[..., Any], limit: int | None) -> None:
    reads = Counted(5)
    source = Raw(5, reads._note)
    ours, theirs = on_gpu(source, DOT, 5, device_cache=limit), on_gpu(5, DOT, 5)
    for _ in range(2):
        assert_same(epoch(ours), epoch(theirs))
    assert sorted(set(reads.reads)) == [0, 3]
    assert len(reads.reads) == (2 if limit else 4)


@pytest.mark.usefixtures("unrendered")
def test_bad_samples_are_substituted_as_on_the_cpu_and_never_stored(
    on_gpu: Callable[..., Any], tmp_path: Path
) -> None:
    folder = write_odd(tmp_path / "odd")
    ours = on_gpu(folder, DOT, 7, device_cache=1 << 26)
    theirs = make_loader(folder, DOT, 7, ledger=tmp_path / "cpu")
    for _ in range(2):
        for one, other in zip(epoch(ours), epoch(theirs), strict=True):
            assert torch.equal(one[0], other[0])
            assert (one[1] == other[1]).all()
    assert set(ours.ledger._bad) == set(theirs.ledger._bad)
    cached = set(np.flatnonzero(cache_of(ours)._places["height"]).tolist())
    assert cached == set(range(len(ours.source))) - set(ours.ledger._bad)
    if ours.pipeline.name == "threads":  # DALI's pixels may differ in JPEGs
        for id in cached:
            assert_holds(cache_of(ours), id, decode(ours.source.read(id)))


@pytest.mark.usefixtures("unrendered")
def test_a_sample_in_the_ledger_is_substituted_although_it_is_cached(
    on_gpu: Callable[..., Any],
) -> None:
    """Another batch in flight, say, could not read it."""
    ours, theirs = on_gpu(8, DOT, 4, device_cache=PLENTY), make_loader(8, DOT, 4)
    for loader in (ours, theirs):
        epoch(loader)
        loader.ledger.record(3, "picture 3", "gone")
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.ids, other.ids)
        assert 3 not in one.ids


def test_pasted_views_are_those_without_a_cache(on_gpu: Callable[..., Any]) -> None:
    """Backgrounds come from the cache, too."""
    paste = CopyPaste(p=0.8, background="images")
    recipe = Recipe((replace(DOT.views[0], size=4, paste=paste),), name="pasting")
    ours, theirs = on_gpu(Masked(8), recipe, 4, device_cache=PLENTY), on_gpu(Masked(8), recipe, 4)
    for _ in range(2):
        before = ours.stats().stages["read"].items
        assert_same(epoch(ours), epoch(theirs))
    assert 0 < before == ours.stats().stages["read"].items
    assert ours.stats().unmasked == theirs.stats().unmasked > 0


@pytest.mark.usefixtures("unrendered")
def test_resuming_and_early_ends(on_gpu: Callable[..., Any]) -> None:
    ours, theirs = on_gpu(8, DOT, 2, device_cache=PLENTY), make_loader(8, DOT, 2)
    ids = [[batch.ids.tolist() for batch in theirs] for _ in range(3)]
    assert [batch.ids.tolist() for batch in itertools.islice(ours, 2)] == ids[0][:2]
    assert next(iter(ours)).ids.tolist() == ids[1][0]
    state = ours.state_dict()
    again = on_gpu(8, DOT, 2, device_cache=PLENTY)
    again.load_state_dict(state)
    assert [batch.ids.tolist() for batch in again] == ids[1][1:]


def test_closing_frees_the_cache_and_the_next_epoch_fills_it_anew(
    on_gpu: Callable[..., Any],
) -> None:
    source = Counted(6)
    loader = on_gpu(source, DOT, 3, device_cache=PLENTY)
    first = epoch(loader)
    block = weakref.ref(cache_of(loader)._blocks[0])
    loader.close()
    assert block() is None
    loader.set_epoch(0)
    assert_same(epoch(loader), first)
    assert sorted(source.reads) == sorted([*range(6)] * 2)


@pytest.mark.usefixtures("unrendered")
def test_a_jpeg_that_dali_refuses_is_not_stored(on_gpu: Callable[..., Any]) -> None:
    source: Any = Pictures(6)
    files = [jpeg(n, 20 + n, 30) for n in range(6)]
    files[4] = files[4][:620] + b"\xff\xd9"
    source.read = lambda index: files[index]
    ours, theirs = on_gpu(source, DOT, 3, device_cache=PLENTY), make_loader(source, DOT, 3)
    for _ in range(2):
        ids = [batch.ids.tolist() for batch in theirs]
        assert [batch.ids.tolist() for batch in ours] == ids
    assert cache_of(ours).images == 5


def test_warming_up_leaves_the_cache_empty(on_gpu: Callable[..., Any]) -> None:
    """On a GPU it compiles the copies of images, too."""
    loader = on_gpu(Counted(6), DOT, 3, device_cache=PLENTY)
    views_of(loader)._warm_up()
    assert not loader.source.reads
    assert cache_of(loader).images == 0
    assert not cache_of(loader)._blocks


@pytest.mark.usefixtures("unrendered")
def test_stats_say_what_the_cache_holds(on_gpu: Callable[..., Any]) -> None:
    sizes = [pixels(id).size for id in range(8)]
    for limit, full in ((PLENTY, False), (9_000, True)):
        loader = on_gpu(8, DOT, 4, device_cache=limit)
        for _ in range(2):
            epoch(loader)
        found = loader.stats().cache
        held = np.flatnonzero(cache_of(loader)._places["height"])
        assert (found.images, found.samples, found.full) == (len(held), 8, full)
        assert (found.bytes, found.capacity) == (sum(sizes[id] for id in held), limit)
        assert found.hits == len(held)
        assert f"{len(held)} of 8 images" in str(loader.stats())
    assert on_gpu(8, DOT, 4).stats().cache is None


# --------------------------------------------------------------------------------------- the memory


def table(images: list[np.ndarray]) -> ImagePointers:
    shapes = np.array([image.shape[:2] for image in images], np.int64)
    pointers = np.array([image.ctypes.data for image in images], np.int64)
    return ImagePointers(pointers, shapes, 3 * shapes[:, 1])


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=5), min_size=1, max_size=5),
    st.sampled_from([1000, 4096, 5000, 20_000, 100_000]),
    st.sampled_from([2000, 4096, 1 << 20]),
)
def test_images_are_held_whole_or_not_at_all(
    batches: list[list[int]], limit: int, step: int
) -> None:
    """In any order, repeated, with steps and limits that do and do not suffice."""
    cache = DeviceCache(limit, 12, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_cache, "STEP_BYTES", step)
        for ids in batches:
            before = cache._places.copy()
            images = [pixels(id) for id in ids]
            cache.add(np.array(ids), table(images))
            stays = before["height"] > 0
            assert (cache._places[stays] == before[stays]).all()
    held = np.flatnonzero(cache._places["height"]).tolist()
    assert set(held) <= {id for ids in batches for id in ids}
    for id in held:
        assert_holds(cache, id, pixels(id))
    assert cache.images == len(held)
    assert cache.bytes == sum(pixels(id).size for id in held)
    assert sum(map(len, cache._blocks)) <= limit
    spans = sorted((cache._places[id]["address"], pixels(id).size) for id in held)
    assert all(at + size <= after for (at, size), (after, _) in itertools.pairwise(spans))


def test_where_the_gpu_has_no_memory_left_it_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(device_cache, "STEP_BYTES", 4096)
    cache, images = DeviceCache(PLENTY, 3, CPU), [np.zeros((30, 40, 3), np.uint8)] * 3
    cache.add(np.arange(1), table(images[:1]))

    def no_memory(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", no_memory)
        cache.add(np.arange(3), table(images))
    cache.add(np.arange(3), table(images))
    _, shapes = cache.find(np.arange(3), Ledger(tmp_path / "ledger", 3))
    assert shapes[:, 0].tolist() == [30, 0, 0]
    assert caplog.messages == [
        "cpu has no memory left: its cache of decoded images stays at 4.1KB of 1.05MB"
    ]
