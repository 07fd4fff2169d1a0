"""Views, order, state and ledger of a loader with a decoded cache: those of one without."""

from __future__ import annotations

import logging
import os
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_beton import write_beton
from helpers_pipelines import RECIPE, Masked, Pictures, encoded, make_loader

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import places
from patchmill.loaders.recipe import CopyPaste, Recipe

COUNT = 24
PASTING = Recipe(
    tuple(
        replace(group, paste=CopyPaste(p=0.7, background="images", blur_sigma=2.0))
        for group in RECIPE.views
    ),
    name="pasting",
)


@pytest.fixture(autouse=True)
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /dev/shm, which other tests may use at the same time."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(places, "SHARED_MEMORY", folder)
    return folder


def made(loader: Any, epochs: int = 2) -> list[tuple[list[int], list[torch.Tensor]]]:
    """Ids and views of all batches."""
    return [
        (batch.ids.tolist(), [view.clone() for view in batch.views.values()])
        for _ in range(epochs)
        for batch in loader
    ]


def assert_same(batches: list[Any], expected: list[Any]) -> None:
    assert [ids for ids, _ in batches] == [ids for ids, _ in expected]
    for (_, views), (_, others) in zip(batches, expected, strict=True):
        assert all(map(torch.equal, views, others))


@pytest.mark.parametrize("size", ["1MB", "30KB", "100B"])
@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_views_are_the_same_with_all_a_part_or_none_of_the_images(
    pipeline: str, kind: str, size: str, tmp_path: Path
) -> None:
    cache = f"ram:{size}" if kind == "ram" else f"disk:{tmp_path}/store:{size}"
    plain, cached = make_loader(COUNT, RECIPE), make_loader(COUNT, RECIPE, cache=cache)
    assert_same(made(cached), made(plain))
    figures = cached.stats().cache
    assert figures.samples == COUNT
    if size == "1MB":
        assert (figures.images, figures.hits, figures.full) == (COUNT, COUNT, False)
    else:
        assert figures.full and figures.hits == figures.images < COUNT
    assert plain.stats().cache is None
    assert f"{figures.images} of {COUNT} images" in str(cached.stats())
    assert_same(made(make_loader(COUNT, RECIPE, cache=cache)), made(make_loader(COUNT, RECIPE)))


def test_backgrounds_of_the_same_data_come_from_the_store(pipeline: str) -> None:
    plain = make_loader(Masked(COUNT), PASTING)
    cached = make_loader(Masked(COUNT), PASTING, cache="ram:1MB")
    assert_same(made(cached), made(plain))
    assert cached.stats().cache.hits > COUNT


def test_a_run_goes_on_with_or_without_a_cache(pipeline: str) -> None:
    expected = made(make_loader(COUNT, RECIPE))
    for first, second in ((None, "ram:1MB"), ("ram:1MB", None), ("ram:30KB", "ram:1MB")):
        loader = make_loader(COUNT, RECIPE, cache=first)
        batches = []
        for batch in loader:
            batches.append((batch.ids.tolist(), [view.clone() for view in batch.views.values()]))
            if len(batches) == 2:
                break
        state = loader.state_dict()
        other = make_loader(COUNT, RECIPE, cache=second)
        other.load_state_dict(state)
        assert_same([*batches, *made(other)], expected)
        restored = pickle.loads(pickle.dumps(loader))
        assert_same([*batches, *made(restored)], expected)
        assert (restored.stats().cache is None) == (first is None)


class Stamped(Pictures):
    """Pictures that are known to be unchanged without being read."""

    def stamp(self, index: int) -> int:
        return index + 1


@pytest.mark.parametrize("kind", [Pictures, Stamped])
def test_ranks_share_what_either_of_them_decodes(pipeline: str, kind: Any) -> None:
    reads: list[int] = []

    def ranks(**settings: Any) -> list[Any]:
        source = kind(COUNT, reads.append)
        return [
            make_loader(source, RECIPE, 4, rank=rank, world_size=2, **settings) for rank in (0, 1)
        ]

    expected = [made(loader, 3) for loader in ranks()]
    reads.clear()
    cached = ranks(cache="ram:1MB")
    epochs = [[made(loader, 1) for loader in cached] for _ in range(3)]
    for rank in (0, 1):
        assert_same([batch for epoch in epochs for batch in epoch[rank]], expected[rank])
    if kind is Stamped:
        assert sorted(reads) == list(range(COUNT))
    else:  # each rank compares the bytes of what the other one decoded
        assert set(Counter(reads).values()) <= {1, 2}
    assert cached[0].stats().cache.images == COUNT


def test_bad_samples_are_listed_and_substituted_alike(pipeline: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(COUNT):
        bad = index in (3, 7)
        (folder / f"{index:02}.png").write_bytes(encoded(index)[: 40 if bad else None])
    ledgers = [tmp_path / name for name in ("plain", "cached", "again")]
    plain = made(make_loader(folder, RECIPE, ledger=ledgers[0]))
    for ledger in ledgers[1:]:
        loader = make_loader(folder, RECIPE, ledger=ledger, cache=f"disk:{tmp_path}/store:1MB")
        assert_same(made(loader), plain)
        assert sorted(ledger.read_text().splitlines()) == sorted(
            ledgers[0].read_text().splitlines()
        )
    assert loader.stats().cache.images == COUNT - 2


def test_a_cache_says_once_that_it_is_complete_or_full(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "patchmill")
    made(make_loader(COUNT, RECIPE, cache="ram:1MB"), 3)
    assert caplog.text.count("the decoded cache holds all images, in ") == 1
    loader = make_loader(COUNT, RECIPE, cache="ram:30KB")
    made(loader, 3)
    (line,) = [text for text in caplog.messages if "% of the images" in text]
    assert "would hold all: cache=ram:" in line
    enough = line.rpartition("cache=")[2]
    del loader
    larger = make_loader(COUNT, RECIPE, cache=enough)
    made(larger, 1)
    assert larger.stats().cache.images == COUNT


def test_a_file_that_is_written_again_is_decoded_again(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(COUNT):
        (folder / f"{index:02}.png").write_bytes(encoded(index))
        os.utime(folder / f"{index:02}.png", (1e9, 1e9))
    settings: dict[str, Any] = {"cache": f"disk:{tmp_path}/store:1MB"}
    made(make_loader(folder, RECIPE, **settings))
    (folder / "05.png").write_bytes(encoded(105))
    (folder / "06.png").unlink()
    (folder / "06.png").write_bytes(encoded(206))
    plain = make_loader(folder, RECIPE)
    cached = make_loader(folder, RECIPE, **settings)
    assert_same(made(cached), made(plain))
    assert cached.stats().cache.hits >= COUNT - 2


def test_streams_have_no_cache(tmp_path: Path) -> None:
    with pytest.raises(MillError, match="streamed"):
        make_loader("http://127.0.0.1:9/a.tar", cache="ram:1MB")


def test_ffcv_has_no_cache(tmp_path: Path) -> None:
    pytest.importorskip("ffcv", reason="FFCV is not installed")
    write_beton(tmp_path / "few.beton", [encoded(index * 3) for index in range(4)])
    with pytest.raises(MillError, match="pipeline 'ffcv' has no decoded cache: use pipeline="):
        make_loader(tmp_path / "few.beton", pipeline="ffcv", cache="ram:1MB")
