"""Batches in the forms of hosts, without the hosts."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from helpers_pipelines import RECIPE, Pictures, make_loader

from patchmill.loaders import adapt
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe, Views

PAIRS = Recipe((Views("view", 2, 8),), name="pairs")
ALL = ["as_tuples", "as_dicts", "as_lightly", "as_timm"]


def unlabelled(count: int = 8) -> Pictures:
    pictures = Pictures(count)
    pictures.labels = None
    return pictures


def test_tuples_are_crops_and_labels() -> None:
    plain, adapted = list(make_loader(recipe=RECIPE)), adapt.as_tuples(make_loader(recipe=RECIPE))
    for batch, (crops, labels) in zip(plain, adapted, strict=True):
        assert all(map(torch.equal, crops, batch.crops())) and torch.equal(labels, batch.labels)
    crops, labels = next(iter(adapt.as_tuples(make_loader(unlabelled()))))
    assert len(crops) == 1 and labels is None


def test_dicts_hold_everything_or_the_requested_keys() -> None:
    batch = next(iter(make_loader(recipe=RECIPE)))
    entries = next(iter(adapt.as_dicts(make_loader(recipe=RECIPE))))
    assert type(entries) is dict and list(entries) == ["global", "local", "ids", "labels"]
    asked = next(iter(adapt.as_dicts(make_loader(recipe=RECIPE), image="local", y="labels")))
    assert list(asked) == ["image", "y"]
    assert torch.equal(asked["image"], batch["local"]) and torch.equal(asked["y"], batch.labels)
    single = next(iter(adapt.as_dicts(make_loader(), image="view")))
    assert single["image"].shape == (4, 3, 8, 8)
    bare = next(iter(adapt.as_dicts(make_loader(unlabelled()))))
    assert list(bare) == ["view", "ids"]


def test_lightlys_triples() -> None:
    batch = next(iter(make_loader(recipe=RECIPE)))
    views, labels, names = next(iter(adapt.as_lightly(make_loader(recipe=RECIPE))))
    assert all(map(torch.equal, views, batch.crops())) and torch.equal(labels, batch.labels)
    assert names == [f"picture {id}" for id in batch.ids]
    _, labels, _ = next(iter(adapt.as_lightly(make_loader(unlabelled()))))
    assert labels.tolist() == [0] * 4 and labels.dtype == torch.int64


def test_timms_pairs_and_its_mixup_hook() -> None:
    batch = next(iter(make_loader()))
    loader = adapt.as_timm(make_loader(), mixup=lambda images, target: (images * 2, target * 0))
    images, target = next(iter(loader))
    assert torch.equal(images, batch["view"][:, 0] * 2) and not target.any()
    assert loader.mixup_enabled and not adapt.as_timm(make_loader()).mixup_enabled
    loader.mixup_enabled = False  # as train.py does
    loader.sampler.set_epoch(0)
    images, target = next(iter(loader))
    assert torch.equal(images, batch["view"][:, 0]) and torch.equal(target, batch.labels)


@pytest.mark.parametrize("name", ALL)
def test_everything_else_is_delegated_to_the_loader(name: str) -> None:
    loader = make_loader(batch_size=4, rank=1, world_size=2)
    adapted: Any = getattr(adapt, name)(loader)
    assert (len(adapted), adapted.batch_size, adapted.drop_last) == (3, 4, True)
    assert adapted.sampler.rank == 1 and adapted.dataset is loader.dataset
    iterator = iter(adapted)
    next(iterator)
    state = adapted.state_dict()
    rest = [str(it) for it in iterator]
    assert adapted.stats().bad == 0
    adapted.load_state_dict(state)
    adapted.set_epoch(0)
    assert [str(it) for it in adapted] == rest and len(rest) == 2
    adapted.set_epoch(5)
    assert loader.epoch == 5
    adapted.close()


def test_an_adapted_loader_pickles() -> None:
    adapted = adapt.as_dicts(make_loader("scenes:8"), image="view")
    restored = pickle.loads(pickle.dumps(adapted))
    assert torch.equal(next(iter(restored))["image"], next(iter(adapted))["image"])


WRONG: list[tuple[Any, str]] = [
    (lambda: adapt.as_tuples([1, 2]), "a loader made by loaders.build is needed here, not a list"),
    (lambda: adapt.as_lightly(None), "needed here, not a NoneType"),
    (
        lambda: adapt.as_dicts(make_loader(), image="global"),
        "cannot put 'global' under 'image': batches of the recipe glance have view, labels, ids",
    ),
    (
        lambda: next(iter(adapt.as_dicts(make_loader(unlabelled()), y="labels"))),
        r"as_dicts\(y='labels'\) needs labels, but these images have none",
    ),
    (
        lambda: adapt.as_timm(make_loader(recipe=PAIRS)),
        "timm's loop takes one view per image, but the recipe pairs: 2 x 8px view makes 2",
    ),
    (lambda: next(iter(adapt.as_timm(make_loader(unlabelled())))), "timm's loop needs labels"),
    (
        lambda: adapt.as_timm(make_loader(batch_size=3), mixup=lambda *pair: pair),
        "mixup mixes pairs of images, but batch_size is 3",
    ),
]


@pytest.mark.parametrize(("use", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_use_is_refused_in_a_sentence(use: Any, message: str) -> None:
    with pytest.raises(MillError, match=message) as caught:
        use()
    assert "\n" not in str(caught.value)


def test_importing_adapters_imports_no_framework() -> None:
    code = "import sys; from patchmill.loaders import adapt; dir(adapt); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert {"torch", "lightning", "transformers", "timm", "numba"} & set(loaded) == set()
    with pytest.raises(AttributeError, match="no attribute 'as_keras'"):
        getattr(adapt, "as_keras")  # noqa: B009
