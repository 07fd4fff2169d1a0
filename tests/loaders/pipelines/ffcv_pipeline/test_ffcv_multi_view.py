"""`MultiView` in FFCV's own loader gives the views of every other pipeline."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from helpers_beton import encode, overwrite_image, pixels, write_beton
from helpers_masked_beton import pasting, write_masked

pytest.importorskip("ffcv")

from patchmill.loaders.pipelines.ffcv.multi_view import MultiView  # isort: skip  # before FFCV
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.writer import DatasetWriter

from patchmill import loaders
from patchmill.kernels.views.cpu import render
from patchmill.loaders import operations
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.order import permutation
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Blur, Colour, Crop, Recipe, Views
from patchmill.loaders.sources.beton.source import Beton

COUNT, BATCH, SEED = 22, 5, 2**63 + 9
IMAGES = [encode(i) for i in range(COUNT)]
RECIPE = Recipe(
    (
        Views("global", 2, 16, Crop((0.4, 1.0)), colour=Colour(0.4, 0.4, 0.2, 0.1), blur=Blur(0.5)),
        Views("local", 3, 9, Crop((0.05, 0.4)), turns=True),
    ),
    name="small",
)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_beton(tmp_path / "some.beton", IMAGES)


def loader_of(path: Path, views: MultiView, **settings: Any) -> Loader:
    settings = {"num_workers": 2, "order": OrderOption.RANDOM, "drop_last": False} | settings
    pipelines = {**dict.fromkeys(Beton(path).fields), "image": [views]}
    return Loader(str(path), BATCH, pipelines=pipelines, **settings)


def epoch_of(loader: Loader, views: MultiView, labels: np.ndarray | None = None) -> list[ViewBatch]:
    """Copies of all batches, because FFCV reuses its memory."""
    batches = []
    for (made_of,) in loader:
        batches.append(views.batch(tuple(part.copy() for part in made_of), labels))
    return batches


def assert_as_planned(batch: ViewBatch, source: Beton, epoch: int) -> None:
    """Each sample has the views that the plan of (seed, epoch, id) gives the exact pixels."""
    images = [decode(source.read(id)) for id in batch.ids.tolist()]
    shapes = [image.shape[:2] for image in images]
    drawn = draw.draw(RECIPE, SEED, epoch, batch.ids.numpy(), shapes)
    assert (batch.rows == drawn.rows).all()
    assert (batch.shapes == drawn.shapes).all()
    dtype = batch.views["global"].dtype
    wanted = render.render(images, drawn.rows, draw.targets(RECIPE), dtype=dtype)
    for name, views in wanted.items():
        assert torch.equal(batch.views[name], views)


class Pictures:
    """A data set for FFCV's writer."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return pixels(index), index + 100


def written_by_ffcv(path: Path, mode: str) -> Path:
    fields = {"image": RGBImageField(mode, smart_threshold=4000), "label": IntField()}
    writer = DatasetWriter(str(path), fields, num_workers=2)
    writer.from_indexed_dataset(Pictures(), chunksize=3)
    return path


# -------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("mode", ["jpg", "raw", "smart"])
def test_views_equal_those_of_the_plan(tmp_path: Path, mode: str) -> None:
    path = written_by_ffcv(tmp_path / "theirs.beton", mode)
    source, views = Beton(path), MultiView(RECIPE, SEED)
    assert source.labels is not None and source.labels.tolist() == list(range(100, 100 + COUNT))
    loader = loader_of(path, views)
    for epoch in range(2):
        batches = epoch_of(loader, views, source.labels)
        assert [len(batch) for batch in batches] == [5, 5, 5, 5, 2]
        assert sorted(id for batch in batches for id in batch.ids.tolist()) == list(range(COUNT))
        for batch in batches:
            assert_as_planned(batch, source, epoch)
            assert batch.labels is not None
            assert batch.labels.tolist() == [id + 100 for id in batch.ids.tolist()]


@pytest.mark.parametrize(
    ("dtype", "channels_last"),
    [(torch.uint8, True), (torch.bfloat16, False), (torch.float16, True)],
)
def test_dtypes(path: Path, dtype: torch.dtype, channels_last: bool) -> None:
    views = MultiView(RECIPE, SEED, dtype=dtype, channels_last=channels_last)
    for batch in epoch_of(loader_of(path, views, num_workers=1), views):
        assert_as_planned(batch, Beton(path), 0)


def test_exact_pixels_of_odd_jpegs(tmp_path: Path) -> None:
    """PIL's pixels for any chroma subsampling, and for files that libturbojpeg does not decode."""
    odd = [encode(i, subsampling=i % 3, quality=50 + i) for i in range(6)]
    odd += [encode(i, progressive=True) for i in range(6, 9)]
    odd += [encode(i, mode="L") for i in range(9, 12)]
    odd += [encode(i, mode="CMYK") for i in range(12, 15)]
    odd += [IMAGES[i] + b"trailing" for i in range(15, 18)] + IMAGES[18:]
    path = write_beton(tmp_path / "odd.beton", odd)
    views = MultiView(RECIPE, SEED)
    batches = epoch_of(loader_of(path, views), views)
    assert sorted(id for batch in batches for id in batch.ids.tolist()) == list(range(COUNT))
    for batch in batches:
        assert_as_planned(batch, Beton(path), 0)


def test_other_formats_than_jpeg_are_decoded_in_python(path: Path, tmp_path: Path) -> None:
    overwrite_image(path, 4, encode(0, "WEBP"))
    views = MultiView(RECIPE, SEED, ledger=tmp_path / "bad.jsonl")
    batches = epoch_of(loader_of(path, views), views)
    assert sorted(id for batch in batches for id in batch.ids.tolist()) == list(range(COUNT))
    for batch in batches:
        assert_as_planned(batch, Beton(path), 0)
    assert not (tmp_path / "bad.jsonl").exists()


def test_copy_paste_without_the_source_is_refused() -> None:
    with pytest.raises(MillError, match=r"pastes by masks, .* give it the same file as source="):
        MultiView(pasting("texture"))


@pytest.mark.slow
def test_views_are_pasted_by_masks_and_on_backgrounds(tmp_path: Path) -> None:
    path, recipe = write_masked(tmp_path / "masked.beton", COUNT), pasting("texture", "images")
    views = MultiView(recipe, SEED, source=Beton(path))
    made = epoch_of(loader_of(path, views), views)
    threads = loaders.build(path, recipe, COUNT, seed=SEED, pipeline="threads", workers=1)
    (expected,) = threads
    slots = {id: slot for slot, id in enumerate(expected.ids.tolist())}
    assert sum(len(batch) for batch in made) == COUNT
    for batch in made:
        at = [slots[id] for id in batch.ids.tolist()]
        assert (batch.rows == expected.rows[at]).all()
        for name, group in expected.views.items():
            assert torch.equal(batch.views[name], group[at])
            assert torch.equal(batch.pasted[name], expected.pasted[name][at])
    assert expected.pasted["images"].any()


def test_operations_of_a_recipe_are_refused() -> None:
    recipe = operations.add(RECIPE, operations.Posterise())
    with pytest.raises(MillError, match=r"MultiView does not apply .* as extra: take loaders"):
        MultiView(recipe)


def test_crops_are_not_square(path: Path) -> None:
    views = MultiView(RECIPE, SEED)
    rows = np.concatenate([batch.rows.ravel() for batch in epoch_of(loader_of(path, views), views)])
    free = rows[rows["fallback"] == 0]
    assert (free["box_h"] != free["box_w"]).mean() > 0.5


# ------------------------------------------------------------------------------------------- epochs


def test_epochs_differ_and_can_be_set(path: Path) -> None:
    views = MultiView(RECIPE, SEED)
    loader = loader_of(path, views, order=OrderOption.SEQUENTIAL)
    first, second = (epoch_of(loader, views) for _ in range(2))
    assert all((a.rows != b.rows).all() for a, b in zip(first, second, strict=True))
    views.epoch = 1
    again, third = (epoch_of(loader, views) for _ in range(2))
    for a, b, c in zip(second, again, third, strict=True):
        assert (a.rows == b.rows).all()
        assert (a.rows != c.rows).all()


def test_overlapping_epochs_do_not_mix(path: Path) -> None:
    views = MultiView(RECIPE, SEED)
    loader = loader_of(path, views)
    for (first,), (second,) in zip(loader, loader, strict=True):
        assert_as_planned(views.batch(first), Beton(path), 0)
        assert_as_planned(views.batch(second), Beton(path), 1)


# -------------------------------------------------------------------------------------- bad samples


def damaged(path: Path, count: int) -> list[int]:
    bad = list(range(1, 2 * count, 2))
    for id in bad:
        overwrite_image(path, id, IMAGES[id][: len(IMAGES[id]) // 2])
    return bad


def entries(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger.read_text().splitlines()]


@pytest.mark.parametrize("with_source", [True, False])
def test_bad_jpegs_are_listed_and_replaced(path: Path, tmp_path: Path, with_source: bool) -> None:
    bad, ledger, source = damaged(path, 3), tmp_path / "bad.jsonl", Beton(path)
    views = MultiView(RECIPE, SEED, source=source if with_source else None, ledger=ledger)
    loader = loader_of(path, views, order=OrderOption.SEQUENTIAL)
    for epoch in range(2):
        batches = epoch_of(loader, views, source.labels)
        ids = [id for batch in batches for id in batch.ids.tolist()]
        assert not set(ids) & set(bad)
        for id in bad:
            assert ids[id] == next(
                stand_in
                for attempt in range(100)
                if (stand_in := permutation.substitute(SEED, epoch, id, attempt, COUNT)) not in bad
            )
        for batch in batches:
            assert_as_planned(batch, source, epoch)
            assert batch.labels is not None
            assert batch.labels.tolist() == [id % 3 for id in batch.ids.tolist()]
    listed = entries(ledger)
    assert sorted(entry["id"] for entry in listed) == bad
    assert all(entry["reason"] for entry in listed)
    if with_source:
        assert {entry["where"] for entry in listed} == {source.where(id) for id in bad}


def test_too_many_bad_jpegs_are_an_error(path: Path) -> None:
    damaged(path, 11)
    views = MultiView(RECIPE, SEED)
    loader = loader_of(path, views)
    with pytest.raises(MillError, match="more than the 10 that are tolerated"):
        epoch_of(loader, views)


def test_the_ledger_is_in_the_cache_by_default(path: Path, tmp_path: Path) -> None:
    damaged(path, 1)
    views = MultiView(RECIPE, SEED)
    epoch_of(loader_of(path, views), views)
    (ledger,) = (tmp_path / "cache" / "ledgers").iterdir()
    assert [entry["id"] for entry in entries(ledger)] == [1]


def test_wrong_dtype(path: Path) -> None:
    with pytest.raises(MillError, match=r"dtype must be one of torch\.float32"):
        loader_of(path, MultiView(RECIPE, dtype=torch.float64))


# ------------------------------------------------------------------------------------ FFCV as it is


def test_ffcv_reads_our_betons(path: Path) -> None:
    decoder = RandomResizedCropRGBImageDecoder((8, 8), (1.0, 1.0))
    loader = Loader(str(path), COUNT, num_workers=1, pipelines={"image": [decoder]})
    ((images, labels),) = loader
    assert labels.flatten().tolist() == [i % 3 for i in range(COUNT)]
    wanted = np.array([pixels(i).mean() for i in range(COUNT)])
    assert np.corrcoef(images.reshape(COUNT, -1).mean(1), wanted)[0, 1] > 0.95


def test_numba_finds_what_it_compiled_before_ffcv(path: Path) -> None:
    @numba.njit
    def total(values: np.ndarray) -> int:
        return values.sum()

    total(np.ones(3, np.uint8))
    views = MultiView(RECIPE, SEED)
    epoch_of(loader_of(path, views), views)
    assert total.overloads[(numba.uint8[::1],)] is next(iter(total.overloads.values()))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Run finalisers of FFCV's compiled code in the test that made it."""
    yield
    gc.collect()
