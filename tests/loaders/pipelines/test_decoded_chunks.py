"""Chunks of decoded images: the batches that one image at a time gives, whatever is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_beton import overwrite_image, write_beton
from helpers_pipelines import GLANCE, RECIPE, Pictures, encoded, make_loader
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.decoded.images import PLACE, DecodedImages
from patchmill.loaders.operations import GaussianNoise
from patchmill.loaders.order import permutation
from patchmill.loaders.pipelines import chunks
from patchmill.loaders.plan.draw import MAX_SIDE
from patchmill.loaders.recipe import Crop, Recipe, Views
from patchmill.loaders.sources.beton.source import Beton
from patchmill.loaders.sources.subset import Subset

COUNT = 40
NOISY = Recipe(
    (*RECIPE.views, Views("noisy", 1, 12, Crop((0.4, 1.0)), extra=(GaussianNoise(),))), name="noisy"
)


class Held(Pictures):
    """Pictures of which the source holds those of `there` decoded, at the end of a little junk."""

    def __init__(self, count: int, there: set[int], bad: tuple[int, ...] = ()) -> None:
        def refuse(index: int) -> None:
            if index in bad:
                raise OSError(f"picture {index} is gone")

        super().__init__(count, refuse)
        self.places = np.zeros(count, PLACE)
        held, end = [np.full(100, 7, np.uint8)], 100
        for index in sorted(there):
            image = decode(encoded(index))
            self.places[index] = (end, *image.shape[:2])
            held.append(image.reshape(-1))
            end += image.size
        self.pixels = np.concatenate(held)

    def decoded_images(self) -> DecodedImages:
        return DecodedImages(self.pixels, self.places)


def batches_of(loader: Any, epochs: int = 1) -> list[Any]:
    made = [batch for _ in range(epochs) for batch in loader]
    loader.close()
    return made


def one_by_one(loader: Any) -> Any:
    """The loader, left to read and decode every image."""
    assert loader.pipeline._decoded is not None
    loader.pipeline._decoded = None
    return loader


def assert_same(batches: list[Any], others: list[Any]) -> None:
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.ids.tolist() == other.ids.tolist()
        assert (batch.rows == other.rows).all() and (batch.shapes == other.shapes).all()
        assert torch.equal(batch.labels, other.labels)
        for name, views in batch.views.items():
            assert torch.equal(views, other.views[name])


@pytest.fixture(params=[3, 50])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Make loaders cut batches into chunks of this many slots."""
    monkeypatch.setattr(chunks, "chunk_size", lambda *_: request.param)
    return request.param


# --------------------------------------------------------------------------------- the same batches


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8])
@pytest.mark.parametrize("channels_last", [False, True])
def test_all_decoded(dtype: torch.dtype, channels_last: bool) -> None:
    def loader() -> Any:
        source = Held(COUNT, set(range(COUNT)))
        return make_loader(source, RECIPE, 13, dtype=dtype, channels_last=channels_last)

    assert_same(batches_of(loader(), 2), batches_of(one_by_one(loader()), 2))


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("workers", [1, 3])
def test_some_decoded_some_not_and_some_bad(workers: int, tmp_path: Path) -> None:
    """Also with operations on parts of a batch; the ledger lists the same samples."""
    order = permutation.Order(COUNT, 0).ids(0, 0, COUNT)
    bad = tuple(order[[1, 2, 15, 31]].tolist())
    there = set(order[::2].tolist()) - set(bad)

    def run(name: str, way: Any) -> tuple[list[Any], list[str]]:
        ledger = tmp_path / name
        source = Held(COUNT, there, bad)
        loader = way(make_loader(source, NOISY, 16, workers=workers, ledger=ledger))
        return batches_of(loader, 2), sorted(ledger.read_text().splitlines())

    (batches, ledger), (others, listed) = run("a", lambda loader: loader), run("b", one_by_one)
    assert_same(batches, others)
    assert ledger == listed and len(ledger) == len(bad)


def test_a_bad_sample_in_the_ledger_is_replaced_though_its_image_is_there() -> None:
    made = []
    for way in (lambda loader: loader, one_by_one):
        loader = way(make_loader(Held(COUNT, set(range(COUNT))), batch_size=10))
        loader.ledger.record(4, "picture 4", "it is bad")
        made.append(batches_of(loader))
        assert 4 not in torch.cat([batch.ids for batch in made[-1]]).tolist()
    assert_same(*made)


@settings(max_examples=12)
@given(
    batch_size=st.integers(1, COUNT),
    there=st.sets(st.integers(0, COUNT - 1)),
    junk=st.sets(st.integers(0, COUNT - 1), max_size=6),
    number=st.integers(-(2**62), 2**62),
)
def test_any_batch_size_and_fill(
    batch_size: int, there: set[int], junk: set[int], number: int
) -> None:
    """Places that do not lie within the pixels are not followed, whatever is written there."""

    def loader() -> Any:
        source = Held(COUNT, there)
        for index in junk:
            height, width = number % 2**31, number // 7 % 2**31
            source.places[index] = (number, height, width)
            if 0 <= number <= source.pixels.size - 3 * height * width:
                source.places[index] = (0, 0, 0)
        return make_loader(source, batch_size=batch_size, drop_last=False)

    assert_same(batches_of(loader()), batches_of(one_by_one(loader())))


def test_resume_within_an_epoch() -> None:
    source = Held(COUNT, set(range(0, COUNT, 3)))
    whole = batches_of(make_loader(source, RECIPE, 8), 2)
    loader = make_loader(source, RECIPE, 8)
    for step, _ in enumerate(loader):
        if step == 2:
            state = loader.state_dict()
            break
    loader.close()
    resumed = make_loader(source, RECIPE, 8, workers=1)
    resumed.load_state_dict(state)
    assert_same(batches_of(resumed, 2), whole[3:])


def test_an_image_with_a_side_that_is_too_long_is_bad() -> None:
    """The places say so, the ledger does, and the views are the substitute's."""
    source = Held(COUNT, set(range(COUNT)))
    source.places[5] = (0, MAX_SIDE + 1, 1)
    source.pixels = np.zeros(max(source.pixels.size, 3 * MAX_SIDE + 3), np.uint8)
    long = b"P6 1 %d 255\n" % (MAX_SIDE + 1) + bytes(3 * MAX_SIDE + 3)
    read = source.read
    source.read = lambda index: long if index == 5 else read(index)  # type: ignore[method-assign]
    loader = make_loader(source, batch_size=10)
    ids = torch.cat([batch.ids for batch in batches_of(loader)]).tolist()
    assert 5 not in ids and 5 in loader.ledger


def test_large_images_after_small_ones_get_the_scratch_that_they_need() -> None:
    rng = np.random.default_rng(0)
    sizes = [(9, 9), (700, 20), (20, 900), (600, 800)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    source = Held(4, set())
    source.pixels = np.concatenate([image.reshape(-1) for image in images])
    ends = np.cumsum([image.size for image in images])
    for index, image in enumerate(images):
        source.places[index] = (ends[index] - image.size, *image.shape[:2])
    ppms = [b"P6 %d %d 255\n" % size[::-1] + images[i].tobytes() for i, size in enumerate(sizes)]
    source.read = ppms.__getitem__  # type: ignore[method-assign]
    recipe = Recipe((Views("view", 2, 20, Crop((0.1, 1.0)), interpolation="bicubic"),))
    for batch_size in (1, 4):
        made = batches_of(make_loader(source, recipe, batch_size))
        assert_same(made, batches_of(one_by_one(make_loader(source, recipe, batch_size))))


# ---------------------------------------------------------------------- caches and raw .beton files


def test_a_cache_that_fills_while_it_is_used(tmp_path: Path) -> None:
    """The first epoch decodes and stores, the second has hits; the views are those without."""
    cache = f"disk:{tmp_path}:60KB"
    plain = batches_of(make_loader(COUNT, RECIPE, 8), 2)
    loader = make_loader(COUNT, RECIPE, 8, cache=cache)
    assert_same([batch for _ in range(2) for batch in loader], plain)
    stats = loader.stats()
    assert stats.cache is not None and 0 < stats.cache.hits < COUNT  # not all fit
    assert stats.stages["plan"].items == stats.stages["render"].items == 2 * COUNT
    assert stats.stages["decode"].items == 2 * COUNT - stats.cache.hits
    loader.close()


def test_raw_images_of_a_beton(tmp_path: Path) -> None:
    """In FFCV's smart mode some are JPEGs, and go on to be decoded; a cache has them the next time.

    One is damaged: the source says why, and it is replaced.
    """
    images = [encoded(index) for index in range(COUNT)]  # every third is a JPEG, the rest are raw
    path = write_beton(tmp_path / "a.beton", images)
    raw = [index for index in range(COUNT) if index % 3]
    overwrite_image(path, 3, b"no JPEG")
    os.utime(path, (1e9, 1e9))  # a cache stores nothing of a file that was written just now
    plain = batches_of(one_by_one(make_loader(path, RECIPE, 8)), 2)
    assert 3 not in torch.cat([batch.ids for batch in plain]).tolist()
    assert_same(batches_of(make_loader(path, RECIPE, 8), 2), plain)
    loader = make_loader(path, RECIPE, 8, cache=f"disk:{tmp_path}:1MB")
    assert_same(batches_of(loader, 2), plain)
    stats = loader.stats()
    jpegs = COUNT - len(raw)
    assert stats.cache is not None and jpegs - 1 <= stats.cache.hits <= jpegs + 1
    assert stats.stages["decode"].items < jpegs + 3


def test_a_subset_of_raw_images(tmp_path: Path) -> None:
    path = write_beton(tmp_path / "a.beton", [encoded(index) for index in range(COUNT)])
    subset = Subset(Beton(path), [7, 2, 31, 30, 4, 8])
    whole = batches_of(make_loader(subset, RECIPE, 3))
    assert_same(whole, batches_of(one_by_one(make_loader(subset, RECIPE, 3))))


def test_a_beton_that_is_cut_short_while_it_is_read_is_an_error_and_no_crash(
    tmp_path: Path,
) -> None:
    path = write_beton(tmp_path / "a.beton", [encoded(3 * index + 1) for index in range(COUNT)])
    loader = make_loader(path, GLANCE, 4)
    batches = iter(loader)
    next(batches)
    os.truncate(path, 4096)
    with pytest.raises(MillError, match="truncated"):
        list(batches)
    loader.close()
