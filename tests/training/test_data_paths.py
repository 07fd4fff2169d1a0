"""Paths of a data set's splits under its root."""

from pathlib import Path

import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.training import data_paths

FOLDER = {"name": "folder", "root": "", "train": "train", "test": "val|test", "bank": None}


def find(root: Path, **given: str) -> dict:
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


def test_default_test_images_may_be_missing(tmp_path: Path):
    (tmp_path / "train").mkdir()
    assert find(tmp_path)["test"] is None
    with pytest.raises(MillError, match=f"data.root={tmp_path} holds no mine: a folder"):
        find(tmp_path, test="mine")


def test_a_root_without_training_images(tmp_path: Path):
    with pytest.raises(MillError, match=r"holds no train: a folder, train.beton, train-"):
        find(tmp_path)


def test_splits_with_paths_need_no_root():
    data = FOLDER | {"train": "/mine", "test": "/other"}
    assert data_paths.resolve(data, {"data.train", "data.test"})["test"] == "/other"
    found = data_paths.resolve(FOLDER | {"train": "/mine"}, {"data.train"})
    assert (found["train"], found["test"], found["root"]) == ("/mine", None, None)
    with pytest.raises(MillError, match=r"data=folder needs data.root=DIR"):
        data_paths.resolve(FOLDER, set())
