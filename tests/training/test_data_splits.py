"""Images to evaluate on, and the lines about them before the first step."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import helpers_runs
import pytest
import torch
from helpers_archives import photo, photos, write_folder, write_zip

from patchmill.loaders.common.errors import MillError
from patchmill.training import data, data_notes, data_splits, engine
from patchmill.training.config import compose
from patchmill.training.config.settings import Config
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import records


def config(root: Path, *overrides: str) -> Config:
    return compose.compose(
        ["method=simclr", "data=folder", f"data.root={root}", "train.batch_size=4", *overrides]
    )


def notes(given: Config) -> str:
    return "\n".join(data_notes.notes(given))


def flat(folder: Path, count: int = 9) -> Path:
    return write_folder(folder, {f"{n}.jpg": photo(n) for n in range(count)})


# ------------------------------------------------------------------------------------------ splits


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_training_images_are_tested_against_the_others(tmp_path: Path, kind: str) -> None:
    write = write_folder if kind == "folder" else write_zip
    given = config(write(tmp_path / f"photos.{kind}", photos()))
    tests = data_splits.open_split(given, "test")
    bank = data_splits.open_split(given, "train")
    assert (tests.sample_count, bank.sample_count) == (1, 8)
    images = [source.read(i) for source in (tests, bank) for i in range(len(source))]
    assert sorted(images) == sorted(photos().values())
    assert data_splits.open_split(given, "test").fingerprint == tests.fingerprint
    loader = data.open_evaluation(given, World(), "train")
    assert len(loader.source) == 8
    loader.close()


def test_a_tenth_is_tested_and_never_more_than_the_most() -> None:
    assert len(data_splits.tested_ids(5)) == 1
    assert len(data_splits.tested_ids(1000)) == 100
    assert len(data_splits.tested_ids(1_000_000)) == data_splits.MOST
    assert (data_splits.tested_ids(1000) == data_splits.tested_ids(1000)).all()


def test_classes_are_numbered_as_in_training(tmp_path: Path) -> None:
    """A class that lacks test images must not shift the numbers of those after it."""
    write_folder(tmp_path / "train", photos())
    others = {name: content for name, content in photos().items() if not name.startswith("cat")}
    write_folder(tmp_path / "val", others | {"owl/1.jpg": photo(50)})
    given = config(tmp_path)
    tests = data_splits.open_split(given, "test")
    assert tests.classes == ["cat", "dog", "newt"]
    assert tests.labels is not None and tests.labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert [tests.read(i) for i in range(len(tests))] == list(others.values())
    said = notes(given)
    assert "1 classes of" in said and "(owl), and their images are not tested" in said
    assert "1 classes of" in said and "(cat)" in said


def test_no_class_in_common(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", photos())
    write_folder(tmp_path / "val", {"owl/1.jpg": photo(50), "emu/1.jpg": photo(51)})
    with pytest.raises(MillError, match=r"no class in common \(emu, owl; cat, dog, newt\): name"):
        data_notes.check(config(tmp_path))
    data_notes.check(config(tmp_path, "evaluate=never"))


def test_numbers_are_not_compared_with_names(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", photos())
    write_folder(tmp_path / "val", {f"{n}/1.jpg": photo(n) for n in range(3)})
    tests = data_splits.open_split(config(tmp_path), "test")
    assert tests.labels is not None and tests.labels.tolist() == [0, 1, 2]


# ------------------------------------------------------------------------------------------- notes


def test_notes_on_training_and_test_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_folder(tmp_path / split, photos())
    assert notes(config(tmp_path)).splitlines() == [
        f"training on {tmp_path}/train: 9 images in 3 classes",
        f"kNN during training: on {tmp_path}/val: 9 images in 3 classes",
    ]


def test_evaluation_on_training_images_is_reported(tmp_path: Path) -> None:
    said = notes(config(write_folder(tmp_path / "photos", photos())))
    assert (
        "there are no test images: accuracies during training are measured on 1 training images"
        in said
    )
    assert "with the other 8 as neighbours; the network learns from all of them, so that" in said
    labels_too = notes(config(tmp_path / "photos", "method=supervised"))
    assert "learns from all of them, labels included, so that" in labels_too


def test_images_without_labels_are_reported(tmp_path: Path) -> None:
    said = notes(config(flat(tmp_path / "photos")))
    assert "photos: 9 images without labels" in said
    assert "training continues without kNN and linear accuracy, and measures only signs of" in said
    write_folder(tmp_path / "train", photos())
    flat(tmp_path / "test")
    said = notes(config(tmp_path))
    assert f"{tmp_path}/test has no labels" in said and said.endswith("with data.test=DIR")
    said = notes(config(tmp_path, f"data.train={tmp_path}/test", f"data.test={tmp_path}/train"))
    assert f"{tmp_path}/test has no labels" in said and said.endswith("with data.bank=DIR")


def test_one_class_and_no_test_images_are_reported(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one", {f"cat/{n}.jpg": photo(n) for n in range(9)})
    assert "9 images of one class" in notes(config(one))
    assert f"all images of {one} belong to one class, so accuracies" in notes(config(one))
    said = notes(config(one, "data.test=none"))
    assert said.endswith(
        "nothing is measured during training, for lack of test images: name labelled test "
        "images with data.test=DIR"
    )


def test_streams_cannot_be_a_bank() -> None:
    overrides = ["method=simclr", "data=folder", "data.root=https://example.org/{0..9}.tar"]
    said = notes(compose.compose([*overrides, "data.steps=10"]))
    assert "which is streamed" in said
    assert "kNN is not measured: streamed images cannot be a bank" in said


def test_images_that_fill_no_batch_are_reported(tmp_path: Path) -> None:
    photos_of_nine = flat(tmp_path / "photos")
    said = notes(config(photos_of_nine, "train.batch_size=6"))
    assert "an epoch is 1 steps of 6 images: the remaining 3 images, different" in said
    assert "the remaining" not in notes(config(photos_of_nine))


def test_fewer_images_than_a_batch_name_a_batch_that_fits(tmp_path: Path) -> None:
    given = config(flat(tmp_path / "photos"), "train.batch_size=64")
    with pytest.raises(
        MillError, match=r"9 samples, fewer than .*=64: .* such as train.batch_size=4"
    ):
        data.open_training(given, World(), tmp_path)


# -------------------------------------------------------------------------------------------- runs


def test_a_run_on_unlabelled_images_measures_what_needs_no_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = str(flat(tmp_path / "photos", 12))
    overrides = {
        "data__train": root,
        "data__test": root,
        "evaluate__knn_every": 1,
        "train__epochs": 1,
    }
    with caplog.at_level(logging.INFO, "patchmill"):
        folder = helpers_runs.train(helpers_runs.config(tmp_path, evaluate="knn", **overrides))
    rows = records.evaluations(folder)
    assert [row["step"] for row in rows] == [0, 1]
    assert all("rankme_h" in row and "knn" not in row for row in rows)
    assert "has no labels: training continues without kNN" in caplog.text


def test_other_images_under_the_name_of_an_earlier_run(tmp_path: Path) -> None:
    one, two = (
        helpers_runs.config(tmp_path, data__train=flat(tmp_path / f"of{n}", n), train__epochs=1)
        for n in (12, 13)
    )
    helpers_runs.train(one)
    with pytest.raises(MillError, match=r"cannot resume from .*: the state was .* with name=NAME"):
        helpers_runs.train(two)


def test_missing_wandb_is_reported_before_data_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    given = helpers_runs.config(tmp_path, log__wandb="p", data__train=tmp_path / "gone")
    with pytest.raises(MillError, match=r"log.wandb=p needs wandb"):
        helpers_runs.train(given)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ..."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "numpy"],
)
def test_too_little_memory_is_one_sentence(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(*_: object) -> None:
        raise error

    monkeypatch.setattr(engine, "train_steps", steps)
    with pytest.raises(
        MillError, match=r"memory for 8 images at a time.*: set train.accumulate=2,"
    ):
        helpers_runs.train(helpers_runs.config(tmp_path))
