"""`MultiView` in FFCV's own loader gives the views of every other pipeline."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers_ffcv as ffcv
import numba
import numpy as np
import pytest
import torch
from helpers_beton import encode, overwrite_image, pixels, write_beton
from helpers_masked_beton import pasting, write_masked

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


def loader_of(path: Path, views: Any, **settings: Any) -> Any:
    settings = {"num_workers": 2, "order": ffcv.OrderOption.RANDOM, "drop_last": False} | settings
    pipelines = {**dict.fromkeys(Beton(path).fields), "image": [views]}
    return ffcv.Loader(str(path), BATCH, pipelines=pipelines, **settings)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Views and their loader, which takes seconds to compile, of a file that nobody damages."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATCHMILL_CACHE", str(folder / "cache"))
        views = ffcv.MultiView(RECIPE, SEED)
        loader = loader_of(write_beton(folder / "some.beton", IMAGES), views)
        epoch_of(loader, views)
    return views, loader, Beton(folder / "some.beton")


@pytest.fixture
def shared(compiled: Any) -> Any:
    """`compiled`, whose next epoch is the first."""
    compiled[0].epoch = 0
    return compiled


def epoch_of(loader: Any, views: Any, labels: np.ndarray | None = None) -> list[ViewBatch]:
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
    fields = {"image": ffcv.RGBImageField(mode, smart_threshold=4000), "label": ffcv.IntField()}
    writer = ffcv.DatasetWriter(str(path), fields, num_workers=2)
    writer.from_indexed_dataset(Pictures(), chunksize=3)
    return path


# -------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize(
    "mode", ["smart", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("jpg", "raw"))]
)
def test_views_equal_those_of_the_plan(tmp_path: Path, mode: str) -> None:
    """Mode smart writes small images raw, and the others as JPEGs."""
    path = written_by_ffcv(tmp_path / "theirs.beton", mode)
    source, views = Beton(path), ffcv.MultiView(RECIPE, SEED)
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
    [
        (torch.uint8, True),
        pytest.param(torch.bfloat16, False, marks=pytest.mark.slow),
        (torch.float16, True),
    ],
)
def test_dtypes(path: Path, dtype: torch.dtype, channels_last: bool) -> None:
    views = ffcv.MultiView(RECIPE, SEED, dtype=dtype, channels_last=channels_last)
    for batch in epoch_of(loader_of(path, views, num_workers=1), views):
        assert_as_planned(batch, Beton(path), 0)


def test_exact_pixels_of_odd_images(tmp_path: Path) -> None:
    """PIL's pixels for any chroma subsampling, and for files that libturbojpeg does not decode.

    JPEGs, and a file of another format, which Python decodes.
    """
    odd = [encode(i, subsampling=i % 3, quality=50 + i) for i in range(6)]
    odd += [encode(i, progressive=True) for i in range(6, 9)]
    odd += [encode(i, mode="L") for i in range(9, 12)]
    odd += [encode(i, mode="CMYK") for i in range(12, 15)]
    odd += [IMAGES[i] + b"trailing" for i in range(15, 18)] + IMAGES[18:]
    path = write_beton(tmp_path / "odd.beton", odd)
    overwrite_image(path, 18, encode(0, "WEBP"))
    views = ffcv.MultiView(RECIPE, SEED, ledger=tmp_path / "bad.jsonl")
    batches = epoch_of(loader_of(path, views), views)
    assert sorted(id for batch in batches for id in batch.ids.tolist()) == list(range(COUNT))
    for batch in batches:
        assert_as_planned(batch, Beton(path), 0)
    assert not (tmp_path / "bad.jsonl").exists()


def test_copy_paste_without_the_source_is_refused() -> None:
    with pytest.raises(MillError, match=r"pastes by masks, .* pass the same file as source="):
        ffcv.MultiView(pasting("texture"))


@pytest.mark.slow
def test_views_are_pasted_by_masks_and_on_backgrounds(tmp_path: Path) -> None:
    path, recipe = write_masked(tmp_path / "masked.beton", COUNT), pasting("texture", "images")
    views = ffcv.MultiView(recipe, SEED, source=Beton(path))
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
    with pytest.raises(MillError, match=r"MultiView does not apply .* as extra: use loaders"):
        ffcv.MultiView(recipe)


def test_crops_are_not_square(shared: Any) -> None:
    views, loader, _ = shared
    rows = np.concatenate([batch.rows.ravel() for batch in epoch_of(loader, views)])
    free = rows[rows["fallback"] == 0]
    assert (free["box_h"] != free["box_w"]).mean() > 0.5


# ------------------------------------------------------------------------------------------- epochs


def test_epochs_differ_and_can_be_set(shared: Any) -> None:
    views, loader, _ = shared

    def rows() -> np.ndarray:
        """The rows of an epoch, in the order of the samples."""
        batches = epoch_of(loader, views)
        order = np.argsort(np.concatenate([batch.ids.numpy() for batch in batches]))
        return np.concatenate([batch.rows for batch in batches])[order]

    first, second = rows(), rows()
    assert (first != second).all()
    views.epoch = 1
    again, third = rows(), rows()
    assert (second == again).all() and (second != third).all()


def test_overlapping_epochs_do_not_mix(shared: Any) -> None:
    views, loader, source = shared
    for (first,), (second,) in zip(loader, loader, strict=True):
        assert_as_planned(views.batch(first), source, 0)
        assert_as_planned(views.batch(second), source, 1)


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
    """In the given ledger, or in one in the cache; and too many are an error."""
    bad, ledger, source = damaged(path, 3), tmp_path / "bad.jsonl", Beton(path)
    given = {"source": source, "ledger": ledger} if with_source else {}
    views = ffcv.MultiView(RECIPE, SEED, **given)
    loader = loader_of(path, views, order=ffcv.OrderOption.SEQUENTIAL)
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
    if not with_source:
        (ledger,) = (tmp_path / "cache" / "ledgers").iterdir()
    listed = entries(ledger)
    assert sorted(entry["id"] for entry in listed) == bad
    assert all(entry["reason"] for entry in listed)
    if with_source:
        assert {entry["where"] for entry in listed} == {source.where(id) for id in bad}

    damaged(path, 11)
    with pytest.raises(MillError, match="more than the 10 that are tolerated"):
        epoch_of(loader, views)


def test_wrong_dtype(path: Path) -> None:
    with pytest.raises(MillError, match=r"dtype must be one of torch\.float32"):
        loader_of(path, ffcv.MultiView(RECIPE, dtype=torch.float64))


# ------------------------------------------------------------------------------------ FFCV as it is


def test_ffcv_reads_our_betons_and_numba_finds_what_it_compiled_before(path: Path) -> None:
    @numba.njit
    def total(values: np.ndarray) -> int:
        return values.sum()

    total(np.ones(3, np.uint8))
    decoder = ffcv.RandomResizedCropRGBImageDecoder((8, 8), (1.0, 1.0))
    loader = ffcv.Loader(str(path), COUNT, num_workers=1, pipelines={"image": [decoder]})
    ((images, labels),) = loader
    assert labels.flatten().tolist() == [i % 3 for i in range(COUNT)]
    wanted = np.array([pixels(i).mean() for i in range(COUNT)])
    assert np.corrcoef(images.reshape(COUNT, -1).mean(1), wanted)[0, 1] > 0.95
    assert total.overloads[(numba.uint8[::1],)] is next(iter(total.overloads.values()))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Run finalisers of FFCV's compiled code in the test that made it."""
    yield
    gc.collect()
