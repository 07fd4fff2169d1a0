"""Paths of a data set's splits under its root."""

from pathlib import Path

import pytest
from helpers_archives import CLASSES, photos, write_folder, write_zip

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import open_source
from patchmill.training import data_paths

FOLDER = {
    "name": "folder",
    "root": "",
    "train": "train|training|.",
    "test": "val|validation|valid|test|train",
    "bank": None,
}


def find(root: Path | str, **given: str | None) -> dict:
    data = FOLDER | {"root": str(root)} | given
    return data_paths.resolve(data, {f"data.{key}" for key in given})


def test_folders_betons_and_shards(tmp_path: Path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test.beton").touch()
    (tmp_path / "more-000000.tar").touch()
    found = find(tmp_path, bank="more")
    assert found["train"] == str(tmp_path / "train")
    assert found["test"] == str(tmp_path / "test.beton")
    assert found["bank"] == str(tmp_path / "more-*.tar")


def test_parquet_files_and_lists(tmp_path: Path):
    for name in ("data/train-00000-of-00002.parquet", "test.parquet", "more.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find(tmp_path, bank="more")
    assert found["train"] == str(tmp_path / "data/train-*.parquet")
    assert found["test"] == str(tmp_path / "test.parquet")
    assert found["bank"] == str(tmp_path / "more.csv")


def test_the_first_existing_name_is_taken(tmp_path: Path):
    for part in ("train", "val", "test"):
        (tmp_path / part).mkdir()
    assert find(tmp_path)["test"] == str(tmp_path / "val")
    assert find(tmp_path, test="test")["test"] == str(tmp_path / "test")
    assert find(tmp_path, test=str(tmp_path / "train"))["test"] == str(tmp_path / "train")


def test_without_test_images_training_images_are_tested(tmp_path: Path):
    (tmp_path / "train").mkdir()
    found = find(tmp_path)
    assert found["test"] == found["train"] == str(tmp_path / "train")
    assert find(tmp_path, test=None)["test"] is None
    with pytest.raises(MillError, match=f"data.root={tmp_path} holds no mine: a folder"):
        find(tmp_path, test="mine")


def test_a_root_without_training_images(tmp_path: Path):
    with pytest.raises(MillError, match=r"holds no train: a folder, train.beton, train-"):
        find(tmp_path, train="train")
    with pytest.raises(MillError, match=r"there is no data.root=.*gone: name a folder or an arch"):
        find(tmp_path / "gone")


@pytest.mark.parametrize(
    "root",
    ["scenes:100", "s3://bucket/train-{000..146}.tar", "/data/train-*.tar", "hf://datasets/a/b"],
)
def test_any_data_may_be_a_root(root: str):
    found = find(root)
    assert found["train"] == found["test"] == root


def test_a_folder_without_splits_is_the_data(tmp_path: Path):
    write_folder(tmp_path / "My photos (2024)", photos())
    found = find(tmp_path / "My photos (2024)")
    assert found["train"] == found["test"] == str(tmp_path / "My photos (2024)")
    assert found["name"] == "My-photos-2024"


def test_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos" / "train").mkdir(parents=True)
    assert find("~/photos")["train"] == str(tmp_path / "photos" / "train")


def test_splits_in_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    whole = write_zip(tmp_path / "whole.zip", photos())
    assert find(whole)["train"] == find(whole)["test"] == str(whole)
    both = {f"{split}/{name}": photos()[name] for split in ("train", "test") for name in photos()}
    split = write_zip(tmp_path / "split.zip", {f"set/{name}": data for name, data in both.items()})
    found = find(split)
    assert (found["train"], found["test"]) == (f"{split}/set/train", f"{split}/set/test")
    assert open_source(found["test"]).classes == CLASSES
    assert found["name"] == "split"


def test_imagenets_own_tars(tmp_path: Path):
    data = {"name": "imagenet", "root": str(tmp_path), "bank": None}
    data |= {"train": "train|ILSVRC2012_img_train", "test": "val|ILSVRC2012_img_val"}
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        (tmp_path / name).touch()
    found = data_paths.resolve(data, set())
    assert found["train"] == str(tmp_path / "ILSVRC2012_img_train.tar")
    assert found["test"] == str(tmp_path / "ILSVRC2012_img_val.tar")
    assert found["name"] == "imagenet"
    (tmp_path / "ILSVRC2012_img_val.tar").unlink()
    with pytest.raises(MillError, match="holds no val or ILSVRC2012_img_val: a folder"):
        data_paths.resolve(data, set())


def test_files_of_many_kinds(tmp_path: Path):
    for name in ("train.zip", "val-00000-of-00001.parquet", "more.csv"):
        (tmp_path / name).touch()
    found = find(tmp_path, bank="more")
    assert found["train"] == str(tmp_path / "train.zip")
    assert found["test"] == str(tmp_path / "val-*.parquet")
    assert found["bank"] == str(tmp_path / "more.csv")


def test_splits_with_paths_need_no_root():
    data = FOLDER | {"train": "/mine", "test": "/other"}
    assert data_paths.resolve(data, {"data.train", "data.test"})["test"] == "/other"
    found = data_paths.resolve(FOLDER | {"train": "/mine"}, {"data.train"})
    assert (found["train"], found["test"], found["root"]) == ("/mine", None, None)
    with pytest.raises(MillError, match=r"data=folder needs data.root=DIR"):
        data_paths.resolve(FOLDER, set())
