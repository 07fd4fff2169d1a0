"""Data loaders of a run: local batches, all images of an evaluation, labels."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from patchmill import loaders
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe_load import load_recipe
from patchmill.training import data
from patchmill.training.config import changes, compose
from patchmill.training.config.settings import Config

SCENES = ["data.train=scenes(count=40, size=32)", "data.test=scenes(count=11, seed=1, size=32)"]


def world(rank: int = 0, size: int = 1, device: str = "cpu") -> Any:
    return SimpleNamespace(rank=rank, size=size, local_rank=rank, device=torch.device(device))


def config(*overrides: str) -> Config:
    small = ["size=32", "train.batch_size=8", "train.workers=1", "evaluate.batch_size=4"]
    return compose.compose(["method=moco", *SCENES, *small, *overrides])


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    for i in range(12):
        Image.new("RGB", (40, 40), (i, 9, 9)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_each_rank_gets_its_share_of_each_batch(tmp_path: Path):
    seen = []
    for rank in range(2):
        loader = data.open_training(config("train.accumulate=2"), world(rank, 2), tmp_path)
        assert len(loader) == 10
        seen.append([batch.ids for batch in loader])
    assert [len(ids) for ids in seen[0]] == [2] * 10
    assert sorted(torch.cat(seen[0] + seen[1]).tolist()) == list(range(40))


def test_workers_and_prefetch_are_the_loaders(tmp_path: Path):
    overrides = ("train.workers=auto", "train.prefetch=auto")
    for given, workers, prefetch in ((overrides, "auto", "auto"), (["train.prefetch=5"], 1, 5)):
        train = config(*given).train
        assert (train.workers, train.prefetch) == (workers, prefetch)
        loader = data.open_training(config(*given), world(), tmp_path)
        assert loader._rebuild.keywords["workers"] == workers
        assert loader._rebuild.keywords["prefetch"] == prefetch
    assert config(*overrides).train.threads(7) == 7 and config().train.threads(7) == 1


@pytest.mark.parametrize(
    "overrides", ["train.workers=all", "train.prefetch=many", "train.prefetch=0"]
)
def test_other_values_of_them_are_one_sentence(overrides: str):
    with pytest.raises(MillError, match=r"must be a whole number of at least 1 or auto") as error:
        config(overrides)
    assert "\n" not in str(error.value)


def test_advice_names_settings_that_exist():
    build = inspect.signature(loaders.build).parameters
    for name, setting in data.SETTINGS.items():
        section, _, key = setting.partition(".")
        assert name in build and hasattr(getattr(config(), section), key)
    assert set(changes.MAY_CHANGE) >= {"train.workers", "train.prefetch"}


def test_objects_are_pasted_on_the_images_of_a_folder(tmp_path: Path):
    folder = tmp_path / "white"
    folder.mkdir()
    Image.new("RGB", (40, 40), "white").save(folder / "0.png")
    recipe = "method.views=dilo(size=32, paste=1.0, background='images')"
    kinds = [f"data.backgrounds={folder}", "data.backgrounds=null"]
    batches = []
    for kind in kinds:
        loader = data.open_training(config(recipe, kind), world(), tmp_path)
        batches.append(next(iter(loader)))
        loader.close()
    assert not torch.equal(*(batch.crops()[0] for batch in batches))


def test_the_ledger_lies_in_the_folder_of_the_run(tmp_path: Path):
    loader = data.open_training(config(), world(1, 2), tmp_path)
    assert loader.ledger.path == tmp_path / "ledger-rank1.jsonl"


@pytest.mark.parametrize(
    ("batch", "parts", "ranks", "message"),
    [
        (8, 1, 3, "train.batch_size=8 cannot be divided among 3 ranks: use 6, for example"),
        (8, 3, 2, "among 2 ranks x train.accumulate=3: use 6, for example"),
        (2, 1, 4, "use 4, for example"),
    ],
)
def test_a_batch_size_that_ranks_cannot_share_is_an_error(
    batch: int, parts: int, ranks: int, message: str
):
    settings = config(f"train.batch_size={batch}", f"train.accumulate={parts}")
    with pytest.raises(MillError, match=message):
        data.local_batch_size(settings, ranks)


def test_too_few_images_for_a_batch_are_an_error(tmp_path: Path):
    with pytest.raises(MillError, match=r"has 40 samples, fewer than train.batch_size=64: use"):
        data.open_training(config("train.batch_size=64"), world(), tmp_path)


def test_missing_masks_are_an_error_for_dilo(unlabelled: Path, tmp_path: Path):
    overrides = [f"data.train={unlabelled}", "method=dilo", "method.queue=64"]
    with pytest.raises(MillError, match=r"there are none for .* make them"):
        data.open_training(config(*overrides), world(), tmp_path)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_evaluation_sees_every_image_once(ranks: int):
    ids, labels = [], []
    for rank in range(ranks):
        for batch in data.open_evaluation(config(), world(rank, ranks), "test"):
            ids.append(batch.ids)
            labels.append(batch.labels)
    assert sorted(torch.cat(ids).tolist()) == list(range(11))
    assert len(torch.cat(labels)) == 11


def test_an_evaluation_shows_images_normalised_as_in_training():
    settings = config("method=emp_ssl", "scale=cifar", "method.views=emp_ssl(patches=4)")
    loader = data.open_evaluation(settings, world(), "test")
    (view,) = loader.recipe.views
    assert (view.mean, view.std) == ((0.5,) * 3, (0.5,) * 3)
    assert view.size == 64  # the magnification of its patches


def test_evaluation_shares_a_cache_with_training_but_not_that_of_a_gpu():
    for cache, shared in (("ram:1MB", "ram:1MB"), ("device:1MB", None)):
        composed = config(f"data.cache={cache}")
        assert data.shared_cache(composed, "train") == shared
        assert data.shared_cache(composed, "test") is None


def test_other_views_and_batches_can_be_asked_for():
    recipe = load_recipe("eval(size=16, short_side=16)")
    loader = data.open_evaluation(config(), world(), "train", recipe, 5)
    batch = next(iter(loader))
    assert batch.views["image"].shape == (5, 1, 3, 16, 16)
    loader.close()


def test_images_without_labels_cannot_be_evaluated(unlabelled: Path):
    settings = config(f"data.train={unlabelled}")
    with pytest.raises(MillError, match=r"has no labels to evaluate with: .* data.bank=DIR"):
        data.open_evaluation(settings, world(), "train")
    assert data.open_evaluation(settings, world(), "train", labelled=False)
    with_bank = config(f"data.train={unlabelled}", "data.bank=scenes(count=6, size=32)")
    assert "scenes" in data.open_evaluation(with_bank, world(), "train").source.name


def test_missing_test_images_are_an_error_of_evaluation():
    with pytest.raises(MillError, match=r"data=scenes has no test images: .* data.test=DIR"):
        data.open_evaluation(config("data.test=none"), world(), "test")


def test_number_of_classes(unlabelled: Path):
    assert data.count_classes(config()) == 10
    assert data.count_classes(config("data.train=scenes(count=40, size=32, classes=3)")) == 3
    assert data.count_classes(config(f"data.train={unlabelled}")) is None


def test_channels_last_on_gpus_by_default():
    assert not data.channels_last(config(), world())
    assert data.channels_last(config(), world(device="cuda"))
    assert data.channels_last(config("train.channels_last=true"), world())
    assert not data.channels_last(config("train.channels_last=false"), world(device="cuda"))


def test_decoded_images_are_kept_and_shared_with_an_evaluation_on_them(tmp_path: Path):
    overrides = [f"data.cache=disk:{tmp_path}/decoded:1MB"]
    loader = data.open_training(config(*overrides), world(), tmp_path)
    ids = [batch.ids for batch in loader]
    bank = data.open_evaluation(config(*overrides), world(), "train")
    tests = data.open_evaluation(config(*overrides), world(), "test")
    assert sum(len(batch) for batch in bank) == 40
    assert bank.stats().cache.hits == len(torch.cat(ids)) == 40
    assert tests.stats().cache is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.cache=lots"], "cache must be"),
        (
            ["data.cache=ram:1MB", "train.pipeline=ffcv"],
            "a cache of a GPU's memory",
        ),
    ],
)
def test_a_cache_that_cannot_be_is_refused_before_anything_is_opened(
    overrides: list[str], message: str
):
    with pytest.raises(MillError, match=message):
        config(*overrides)


def test_ffcvs_pipeline_may_keep_images_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`loaders.build`, which knows the run's device, is told to."""
    wanted = config("data.cache=device:1MB", "train.pipeline=ffcv")
    monkeypatch.setattr(data.loaders, "build", lambda *_, **settings: settings)
    told: Any = data.open_training(wanted, world(), tmp_path)
    assert (told["cache"], told["pipeline"]) == ("device:1MB", "ffcv")
