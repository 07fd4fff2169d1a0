"""The same images give the same batches from a folder and from any other kind of data."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_archives import tar_of, write_lmdb, write_zip
from helpers_parquet import write_images
from helpers_pipelines import RECIPE, encoded, make_loader
from helpers_shards import write_tar
from PIL import Image

from patchmill.loaders.prepare import make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.sources.folder import Folder

COUNT = 30


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Pictures of two classes in every format: JPEGs and PNGs, in the order of the folder."""
    root = tmp_path_factory.mktemp("formats")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATCHMILL_CACHE", str(root / "cache"))
        for n in range(COUNT):
            path = root / "folder" / "ab"[n % 2] / f"{n:03}.{'png' if n % 3 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(n))
        found: dict[str, Any] = {
            "folder": root / "folder",
            "shards": root / "shards",
            "beton": root / "all.beton",
        }
        folder = Folder(found["folder"])
        assert folder.labels is not None
        labelled = [(folder.where(i), folder.classes[folder.labels[i]]) for i in range(COUNT)]
        found["paths"] = labelled
        found["items"] = [(Image.open(path), "ab".index(name)) for path, name in labelled]
        found["list"] = root / "list.csv"
        lines = ["path,label", *map(",".join, labelled)]
        found["list"].write_text("\n".join(lines))
        files = {f"{name}/{Path(path).name}": Path(path).read_bytes() for path, name in labelled}
        found["zip"] = write_zip(root / "all.zip", files)
        found["tar"] = write_tar(root / "all.tar", files.items())
        by_class = {
            f"{name}.tar": tar_of({f: data for f, data in files.items() if f.startswith(name)})
            for name in folder.classes
        }
        found["tar of tars"] = write_tar(root / "tars.tar", by_class.items())
        if importlib.util.find_spec("lmdb"):
            found["lmdb"] = write_lmdb(root / "all.lmdb", files)
        if importlib.util.find_spec("pyarrow"):
            images = [folder.read(i) for i in range(COUNT)]
            found["parquet"] = root / "all.parquet"
            write_images(found["parquet"], images, folder.labels.tolist(), folder.classes)
        for form in ("shards", "beton"):
            options = Options(format=form, seed=None, shard_size=1_000_000)
            make_data.make(Folder(found["folder"]), found[form], options, workers=2)
    return found


def threads() -> str:
    return "threads"


def ffcv() -> str:
    pytest.importorskip("ffcv")
    return "ffcv"


def dali() -> str:
    pytest.importorskip("nvidia.dali")
    return "dali"


WAYS: list[tuple[str, Callable[[], str]]] = [
    ("shards", threads),
    ("beton", threads),
    ("shards", dali),
    ("beton", dali),
    ("beton", ffcv),
    ("parquet", threads),
    ("paths", threads),
    ("list", threads),
    ("items", threads),
    ("items", dali),
    ("zip", threads),
    ("zip", dali),
    ("tar", threads),
    ("tar of tars", threads),
    ("lmdb", threads),
]


@pytest.mark.parametrize(
    ("form", "pipeline"), WAYS, ids=[f"{form}-{way.__name__}" for form, way in WAYS]
)
def test_ids_and_pixels_equal_those_of_the_folder(
    places: dict[str, Any], form: str, pipeline: Callable[[], str]
) -> None:
    if form not in places:
        pytest.skip(f"the package that reads {form} is not installed")
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
