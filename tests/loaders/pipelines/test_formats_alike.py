"""The same images give the same batches from a folder, from shards and from a .beton."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pipelines import RECIPE, encoded, make_loader

from patchmill.loaders.prepare import make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.sources.folder import Folder

COUNT = 30


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pictures of two classes in every format: JPEGs and PNGs, in the order of the folder."""
    root = tmp_path_factory.mktemp("formats")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATCHMILL_CACHE", str(root / "cache"))
        for n in range(COUNT):
            path = root / "folder" / "ab"[n % 2] / f"{n:03}.{'png' if n % 3 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(n))
        found = {"folder": root / "folder", "shards": root / "shards", "beton": root / "all.beton"}
        for form in ("shards", "beton"):
            options = Options(format=form, seed=None, shard_size=1_000_000)
            make_data.make(Folder(found["folder"]), found[form], options, workers=2)
    return found


def ffcv() -> str:
    pytest.importorskip("ffcv")
    return "ffcv"


def dali() -> str:
    pytest.importorskip("nvidia.dali")
    return "dali"


WAYS: list[tuple[str, Callable[[], str]]] = [
    ("shards", lambda: "threads"),
    ("beton", lambda: "threads"),
    ("shards", dali),
    ("beton", dali),
    ("beton", ffcv),
]


@pytest.mark.parametrize(
    ("form", "pipeline"), WAYS, ids=["shards", "beton", "shards-dali", "beton-dali", "beton-ffcv"]
)
def test_ids_and_pixels_equal_those_of_the_folder(
    places: dict[str, Path], form: str, pipeline: Callable[[], str]
) -> None:
    settings: dict[str, Any] = {"recipe": RECIPE, "batch_size": 7, "drop_last": False}
    by_files = make_loader(places["folder"], **settings)
    ours = make_loader(places[form], pipeline=pipeline(), **settings)
    assert len(ours) == len(by_files) == 5
    for _ in range(2):
        for batch, expected in zip(ours, by_files, strict=True):
            assert torch.equal(batch.ids, expected.ids)
            assert torch.equal(batch.labels, expected.labels)
            assert (batch.rows == expected.rows).all()
            for name, views in expected.views.items():
                assert torch.equal(batch.views[name], views)
    assert len(ours.ledger) == 0
