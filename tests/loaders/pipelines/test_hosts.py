"""Faces that other people's training loops ask of a loader and of its batches."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers_pipelines import GLANCE, RECIPE, make_loader

from patchmill import loaders
from patchmill.loaders.adapt import as_tuples
from patchmill.loaders.common.errors import MillError

HERE = Path(__file__).parent


def all_ids(batches) -> list[list[int]]:
    return [batch.ids.tolist() for batch in batches]


# ------------------------------------------------------------------------------------------ batches


def test_a_batch_is_a_pair_and_a_mapping() -> None:
    batch = next(iter(make_loader(recipe=RECIPE)))
    crops, labels = batch
    assert [tuple(crop.shape[1:]) for crop in crops] == [(3, 16, 16)] * 2 + [(3, 9, 9)] * 3
    assert all(crop.is_contiguous() for crop in crops) and batch.flat("local").is_contiguous()
    assert labels is batch.labels is batch["labels"]
    assert dict(batch).keys() == {"global", "local", "ids", "labels"}
    assert batch["global"] is batch.views["global"]
    assert "labels" in batch and "pixel_values" not in batch
    with pytest.raises(KeyError, match="a batch with global, local, ids, labels has no 'image'"):
        batch["image"]
    with pytest.raises(KeyError, match="has no 0: unpack it, as crops, labels = batch"):
        batch[0]


def test_a_batch_moves_as_a_whole() -> None:
    batch = next(iter(make_loader(recipe=RECIPE, channels_last=True)))
    moved = batch.to("meta")
    assert all(group.device.type == "meta" for group in moved.views.values())
    assert moved.labels.device.type == "meta" and moved.ids is batch.ids
    assert moved["global"].stride() == batch["global"].stride()
    assert moved.geometry["global"].box.device.type == "meta"
    assert batch.to("cpu")["global"].data_ptr() == batch["global"].data_ptr()


def test_a_batch_can_be_changed() -> None:
    batch = next(iter(make_loader(recipe=RECIPE)))
    batch.labels = batch.labels * 2
    batch.views["global"] = batch["global"] * 0
    assert not batch["global"].any() and not batch.crops()[0].any()


def test_the_text_of_a_batch_is_a_line() -> None:
    batch = next(iter(make_loader(recipe=RECIPE, batch_size=4, dtype=torch.bfloat16)))
    assert repr(batch) == (
        "ViewBatch(4 images: 2 x 16px global, 3 x 9px local; bfloat16 on cpu, with labels)"
    )
    assert repr(make_loader(recipe=RECIPE, rank=1, world_size=2)).startswith(
        "Loader(pictures, small: 2 x 16px"
    )


# ------------------------------------------------------------------------------------------- epochs


def test_set_epoch_chooses_the_next_iteration() -> None:
    loader, other = make_loader(), make_loader()
    epochs = [all_ids(loader) for _ in range(3)]
    for epoch in (2, 0, 0, 1):
        other.sampler.set_epoch(epoch)
        assert all_ids(other) == epochs[epoch]
    assert all_ids(other) == epochs[2]  # without it, epochs follow each other
    with pytest.raises(MillError, match="an epoch is a whole number"):
        loader.set_epoch(-1)


def test_set_epoch_in_the_usual_loop_changes_nothing() -> None:
    loader, other = make_loader(), make_loader()
    for epoch in range(3):
        other.set_epoch(epoch)
        assert all_ids(other) == all_ids(loader)
        assert other.epoch == epoch + 1


def test_set_epoch_keeps_a_position_that_was_loaded() -> None:
    loader = make_loader()
    loader.set_epoch(2)
    iterator = iter(loader)
    next(iterator)
    state, rest = loader.state_dict(), all_ids(iterator)
    for epoch in (2, 3):
        resumed = make_loader()
        resumed.load_state_dict(state)
        resumed.set_epoch(epoch)
        assert (all_ids(resumed) == rest) == (epoch == 2)


def test_set_epoch_keeps_a_position_that_was_loaded_during_an_iteration() -> None:
    loader = make_loader()
    iterator = iter(loader)
    next(iterator)
    state, rest = loader.state_dict(), all_ids(iterator)
    iterator = iter(loader)
    next(iterator)
    loader.load_state_dict(state)
    loader.set_epoch(0)
    assert all_ids(loader) == rest


def test_first_step_is_where_the_next_iteration_begins() -> None:
    loader, resumed = make_loader(), make_loader()
    assert loader.first_step == 0
    for batch in loader:
        ids, state = batch.ids.tolist(), loader.state_dict()
        break
    assert loader.first_step == 0  # the next epoch, as this one was left
    resumed.load_state_dict(state)
    assert as_tuples(resumed).first_step == resumed.first_step == 1
    steps = [step for step, _ in enumerate(resumed, resumed.first_step)]
    assert steps == list(range(1, len(resumed)))
    assert resumed.first_step == 0
    resumed.load_state_dict(state)
    resumed.set_epoch(0)
    assert resumed.first_step == 1
    resumed.set_epoch(5)
    assert resumed.first_step == 0
    assert next(iter(make_loader())).ids.tolist() == ids


def test_set_epoch_after_a_break_starts_that_epoch_again() -> None:
    loader = make_loader()
    first = all_ids(make_loader())
    for _ in loader:
        break
    loader.set_epoch(0)
    assert all_ids(loader) == first


def test_set_epoch_during_an_iteration_counts_for_the_next() -> None:
    """Lightning creates its iterator before it sets the epoch."""
    epochs = [all_ids(make_epoch) for make_epoch in [make_loader()]]
    loader = make_loader()
    iterator = iter(loader)
    ids = [next(iterator).ids.tolist()]
    loader.set_epoch(0)
    assert ids + all_ids(iterator) == epochs[0]
    loader.set_epoch(1)
    assert loader.epoch == 1


def test_the_sampler_has_the_usual_face() -> None:
    loader = make_loader(batch_size=4, rank=1, world_size=2, seed=5)
    sampler = loader.sampler
    assert (sampler.rank, sampler.num_replicas, len(sampler)) == (1, 2, 12)
    assert (sampler.seed, sampler.epoch, sampler.drop_last) == (5, 0, True)
    assert len(loader.dataset) == 24 and loader.batch_size == 4


# ---------------------------------------------------------------------------------- other processes


def test_a_pickled_loader_goes_on_where_it_was(pipeline: str) -> None:
    loader = loaders.build("scenes:12", RECIPE, 4, workers=1, pipeline=pipeline, seed=3)
    iterator = iter(loader)
    next(iterator)
    restored = pickle.loads(pickle.dumps(loader))
    rest = all_ids(iterator)
    assert all_ids(restored) == rest
    assert all_ids(copy.deepcopy(loader)) == all_ids(restored) == all_ids(loader)


EXIT = """
from helpers_pipelines import *
loader = make_loader()
iterator = iter(loader)
next(iterator)
"""


def test_a_live_iterator_at_exit_says_nothing() -> None:
    for ending in ("", "\nkeep = [iterator]; keep.append(keep)", "\nimport sys; sys.exit()"):
        done = subprocess.run(
            [sys.executable, "-c", EXIT + ending],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_loader_without_labels_gives_none_for_them() -> None:
    class Bare:
        name, fingerprint, labels, classes = "bare", "bare", None, ()

        def __len__(self) -> int:
            return 4

        def read(self, index: int) -> bytes:
            from helpers_pipelines import encoded

            return encoded(index)

        def where(self, index: int) -> str:
            return str(index)

    batch = next(iter(loaders.build(Bare(), GLANCE, 4, workers=1)))
    crops, labels = batch
    assert len(crops) == 1 and labels is None and "labels" not in batch
