"""Batches in the form of stable-pretraining's forward functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_pipelines import GLANCE, RECIPE, make_loader

from patchmill.loaders.recipe import Recipe, Views

pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
from patchmill.loaders.adapt import as_stable_pretraining

PAIRS = Recipe((Views("view", 2, 8),), name="pairs")


def first(recipe: Recipe) -> tuple[Any, Any]:
    batch = next(iter(make_loader(recipe=recipe)))
    return batch, next(iter(as_stable_pretraining(make_loader(recipe=recipe))))


def test_one_view_is_a_dict() -> None:
    batch, entries = first(GLANCE)
    assert type(entries) is dict and list(entries) == ["image", "label", "sample_idx"]
    assert torch.equal(entries["image"], batch["view"][:, 0])
    assert torch.equal(entries["label"], batch.labels)
    assert torch.equal(entries["sample_idx"], batch.ids)


def test_one_group_is_a_list_of_dicts() -> None:
    batch, entries = first(PAIRS)
    assert list(entries) == ["views"] and type(entries["views"]) is list
    assert all(map(torch.equal, batch.crops(), images(entries["views"])))


def test_several_groups_are_named() -> None:
    batch, entries = first(RECIPE)
    assert list(entries["views"]) == ["global_1", "global_2", "local_1", "local_2", "local_3"]
    views = images(entries["views"].values())
    assert all(map(torch.equal, batch.crops(), views))


def images(views: Any) -> list[torch.Tensor]:
    return [view["image"] for view in views]
